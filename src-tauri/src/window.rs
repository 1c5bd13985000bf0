//! The window and the program's life.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tauri::{AppHandle, Manager, RunEvent, State};
use tauri_plugin_opener::OpenerExt;

use crate::backend::{Backend, Inside, NoBackend, Over};

/// Tells the window where the core is. Waits while it starts.
#[tauri::command]
async fn backend(inside: State<'_, Arc<Inside>>) -> Result<Backend, NoBackend> {
    inside.reached().await
}

/// Opens a web address in the user's browser; nothing but web addresses.
#[tauri::command]
fn open_external(app: AppHandle, url: String) -> Result<(), String> {
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        return Err(format!(
            "`{}` is not a web address",
            url.chars().take(100).collect::<String>()
        ));
    }
    app.opener()
        .open_url(&url, None::<&str>)
        .map_err(|error| format!("could not open {url}: {error}"))
}

/// Opens the window and runs until the user quits; then the core ends in order before the process does, and the agents
/// go on without it.
pub fn run() {
    let inside = Arc::new(Inside::new());
    let running = inside.clone();
    let app = tauri::Builder::default()
        .plugin(tauri_plugin_opener::init())
        .manage(inside.clone())
        .invoke_handler(tauri::generate_handler![backend, open_external])
        .setup(move |app| {
            end_on_signals(app.handle());
            let app = app.handle().clone();
            tauri::async_runtime::spawn(async move {
                match running.run().await {
                    Over::Told => show_why(&app),
                    Over::Ended => app.exit(0),
                    Over::Stopped => {}
                }
            });
            Ok(())
        })
        .build(tauri::generate_context!());
    let app = match app {
        Ok(app) => app,
        Err(error) => {
            eprintln!("error: the window could not be opened: {error}");
            eprintln!("hint: without a display, `semo up` gives the same office in a browser.");
            std::process::exit(1);
        }
    };
    let ending = AtomicBool::new(false);
    app.run(move |app, event| {
        if let RunEvent::ExitRequested { api, .. } = event
            && !ending.swap(true, Ordering::SeqCst)
        {
            // The first request is held until the core has ended; `exit` makes the second one.
            api.prevent_exit();
            let (app, inside) = (app.clone(), inside.clone());
            for window in app.webview_windows().values() {
                // A window that is gone already needs no hiding.
                let _ = window.hide();
            }
            tauri::async_runtime::spawn(async move {
                let code = inside.stop().await;
                app.exit(code);
            });
        }
    });
}

/// A page that is loaded anew asks for the core anew, and so shows why there is none any more.
fn show_why(app: &AppHandle) {
    for window in app.webview_windows().values() {
        if let Err(error) = window.reload() {
            tracing::error!(%error, "the window could not be told");
        }
    }
}

/// SIGTERM (a log-out, an update), Ctrl+C and the end of the terminal end the program like its menu does. They are taken before the core
/// starts, so that none ends the program in the middle of that.
fn end_on_signals(app: &AppHandle) {
    use tokio::signal::unix::{SignalKind, signal};
    let taken = tauri::async_runtime::block_on(async {
        std::io::Result::Ok((
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ))
    });
    let (mut terminate, mut interrupt, mut hang_up) = match taken {
        Ok(taken) => taken,
        Err(error) => {
            eprintln!("warning: signals will not end the program in order: {error}");
            return;
        }
    };
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
        app.exit(0);
    });
}
