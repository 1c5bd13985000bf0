//! An agent program that does as it is told: a real process in a real terminal, which speaks what Claude Code 2.1.197
//! speaks (input box, hooks over HTTP, transcript, status file, `--session-id`, `--resume`) and can be asked for what
//! the real one never does on demand: hang, die, flood, print garbage, fork children that will not go.
//!
//! What it does in a turn stands in the prompt (see `script.rs`); what it does at its start stands behind `--script`:
//! `die[:CODE]`, `never-ready`, `slow:MS`, `wrong-id`, `exit-on-resume`, `deaf` (takes no notice of TERM), `stall:MS`
//! (shows its box, and reads no key before that time), `swallow:N` (takes no notice of the first N Enters).

mod report;
mod screen;
mod script;
mod turn;
mod wild;

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use report::{Report, Status};
use screen::Screen;

/// Two presses of Ctrl+C within this time end the program.
const EXIT_AGAIN_WITHIN: Duration = Duration::from_secs(2);
const PASTE_START: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// What the program was started with.
#[derive(Default)]
struct Arguments {
    session: Option<String>,
    resume: Option<String>,
    settings: Option<PathBuf>,
    title: String,
    script: Vec<String>,
}

/// What the input of a person or of the office means.
enum Key {
    Text(String),
    Enter,
    Escape,
    Interrupt,
    ClearLine,
    Backspace,
}

/// What the main thread and a turn's thread share.
pub struct Agent {
    pub screen: Screen,
    pub report: Report,
    /// Esc was pressed and no turn has taken notice yet.
    pub interrupted: AtomicBool,
    /// Keys for a dialog that is open.
    pub dialog: std::sync::Mutex<Option<mpsc::Sender<serde_json::Value>>>,
    pub busy: AtomicBool,
}

fn arguments() -> Arguments {
    let mut found = Arguments::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--version" => {
                println!("2.1.197 (Claude Code)");
                std::process::exit(0);
            }
            "--session-id" => found.session = args.next(),
            "--resume" => found.resume = args.next(),
            "--settings" => found.settings = args.next().map(PathBuf::from),
            "-n" => found.title = args.next().unwrap_or_default(),
            "--script" => found.script.push(args.next().unwrap_or_default()),
            _ => {}
        }
    }
    found
}

fn main() {
    let arguments = arguments();
    let has = |word: &str| arguments.script.iter().any(|step| step == word);
    let valued = |word: &str| {
        let values = arguments.script.iter().filter_map(|step| step.split_once(':'));
        values
            .into_iter()
            .find(|(name, _)| *name == word)
            .map(|(_, value)| value.to_owned())
    };
    if has("die") || valued("die").is_some() {
        println!("the scripted agent was told to die at its start");
        std::process::exit(valued("die").and_then(|code| code.parse().ok()).unwrap_or(1));
    }
    if let Some(id) = &arguments.resume
        && (has("exit-on-resume") || !Report::transcript_exists(id))
    {
        println!("No conversation found with session ID: {id}");
        std::process::exit(1);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if has("deaf") {
        let _guard = runtime.enter();
        // A handler takes the place of the default: the signal ends us no more.
        std::mem::forget(tokio::signal::unix::signal(
            tokio::signal::unix::SignalKind::terminate(),
        ));
        std::mem::forget(tokio::signal::unix::signal(
            tokio::signal::unix::SignalKind::hangup(),
        ));
    }
    raw_terminal();
    if let Some(ms) = valued("slow").and_then(|ms| ms.parse().ok()) {
        std::thread::sleep(Duration::from_millis(ms));
    }
    if has("never-ready") {
        println!("loading…");
        loop {
            std::thread::park();
        }
    }
    let id = arguments
        .resume
        .clone()
        .or(arguments.session.clone())
        .unwrap_or_default();
    let shown_id = if has("wrong-id") {
        "00000000-0000-4000-8000-00000000dead".to_owned()
    } else {
        id
    };
    let agent = Arc::new(Agent {
        screen: Screen::new(&arguments.title),
        report: Report::new(shown_id, arguments.settings.as_deref()),
        interrupted: AtomicBool::new(false),
        dialog: std::sync::Mutex::default(),
        busy: AtomicBool::new(false),
    });
    if arguments.resume.is_some() {
        for (prompt, answer) in agent.report.past_turns() {
            agent.screen.prompt_row(&prompt);
            agent.screen.message(&answer);
        }
    }
    agent.report.status(Status::Idle);
    agent.screen.start();
    if let Some(ms) = valued("stall").and_then(|ms| ms.parse().ok()) {
        std::thread::sleep(Duration::from_millis(ms));
    }
    let swallow = valued("swallow").and_then(|count| count.parse().ok());
    listen(&agent, swallow.unwrap_or(0));
}

/// Takes keys until the end.
fn listen(agent: &Arc<Agent>, mut swallow: u32) {
    let (prompts, queue) = mpsc::channel::<String>();
    let worker = Arc::clone(agent);
    std::thread::spawn(move || {
        for prompt in queue {
            turn::carry_out(&worker, &prompt);
        }
    });
    let mut pending = Vec::new();
    let mut buffer = [0u8; 64 * 1024];
    let mut asked_to_exit: Option<Instant> = None;
    loop {
        let count = match std::io::stdin().read(&mut buffer) {
            Ok(0) | Err(_) => std::process::exit(129),
            Ok(count) => count,
        };
        pending.extend_from_slice(&buffer[..count]);
        for key in take_keys(&mut pending) {
            if let Key::Text(text) = &key
                && let Some(answers) = &*agent.dialog.lock().unwrap()
                && let Some(digit) = text.chars().next()
            {
                let _ = answers.send(serde_json::json!({"key": digit}));
                continue;
            }
            match key {
                Key::Text(text) => agent.screen.typed(&text),
                Key::Backspace => agent.screen.backspace(),
                Key::ClearLine => agent.screen.clear_line(),
                Key::Enter if swallow > 0 => swallow -= 1,
                Key::Enter => enter(agent, &prompts),
                Key::Escape => interrupt(agent),
                Key::Interrupt if agent.busy.load(Ordering::SeqCst) => interrupt(agent),
                Key::Interrupt if !agent.screen.text().is_empty() => agent.screen.clear(),
                Key::Interrupt => {
                    if asked_to_exit.is_some_and(|at| at.elapsed() < EXIT_AGAIN_WITHIN) {
                        leave(agent);
                    }
                    asked_to_exit = Some(Instant::now());
                }
            }
        }
    }
}

fn interrupt(agent: &Agent) {
    if let Some(answers) = &*agent.dialog.lock().unwrap() {
        let _ = answers.send(serde_json::json!({"key": "esc"}));
        return;
    }
    if agent.busy.load(Ordering::SeqCst) {
        agent.interrupted.store(true, Ordering::SeqCst);
    }
}

fn enter(agent: &Agent, prompts: &mpsc::Sender<String>) {
    let text = agent.screen.take_text();
    match text.trim_end() {
        "" => {}
        "/exit" => leave(agent),
        "/clear" => {
            agent
                .report
                .hook("SessionEnd", serde_json::json!({"reason": "clear"}));
            agent.report.new_session();
            agent.report.status(Status::Idle);
            agent.screen.start();
        }
        _ => {
            let _ = prompts.send(text);
        }
    }
}

fn leave(agent: &Agent) -> ! {
    agent
        .report
        .hook("SessionEnd", serde_json::json!({"reason": "prompt_input_exit"}));
    agent.report.forget_status();
    std::process::exit(0);
}

/// Whole keys from the front of what has come in; the rest stays for the next read.
fn take_keys(pending: &mut Vec<u8>) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some(first) = pending.first().copied() {
        if pending.starts_with(PASTE_START) {
            let Some(end) = pending
                .windows(PASTE_END.len())
                .position(|window| window == PASTE_END)
            else {
                break;
            };
            let text = String::from_utf8_lossy(&pending[PASTE_START.len()..end]).replace('\r', "\n");
            pending.drain(..end + PASTE_END.len());
            keys.push(Key::Text(text));
            continue;
        }
        if first == 0x1b
            && pending.len() > 1
            && PASTE_START.starts_with(&pending[..pending.len().min(PASTE_START.len())])
        {
            break;
        }
        let length = match first {
            // A terminal's answer to a request is none of a person's keys.
            0x1b if matches!(pending.get(1), Some(b'P' | b']' | b'_')) => {
                let end = pending.windows(2).position(|pair| pair == b"\x1b\\");
                end.map_or(pending.len(), |end| end + 2)
            }
            0x1b if pending.get(1) == Some(&b'[') => {
                let end = pending
                    .iter()
                    .skip(2)
                    .position(|byte| (0x40..0x7f).contains(byte));
                end.map_or(pending.len(), |end| end + 3)
            }
            0x20..=0x7e => pending
                .iter()
                .take_while(|byte| (0x20..0x7f).contains(*byte))
                .count(),
            0x80.. => pending.iter().take_while(|byte| **byte >= 0x80).count(),
            _ => 1,
        };
        let taken: Vec<u8> = pending.drain(..length).collect();
        keys.extend(match first {
            b'\r' => Some(Key::Enter),
            0x1b if length == 1 => Some(Key::Escape),
            0x03 => Some(Key::Interrupt),
            0x15 => Some(Key::ClearLine),
            0x7f | 0x08 => Some(Key::Backspace),
            b'\n' => Some(Key::Text("\n".to_owned())),
            b'\t' => Some(Key::Text("    ".to_owned())),
            0x20.. => Some(Key::Text(String::from_utf8_lossy(&taken).into_owned())),
            _ => None,
        });
    }
    keys
}

fn raw_terminal() {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if let Ok(mut settings) = tcgetattr(&stdin) {
        settings.make_raw();
        let _ = tcsetattr(&stdin, OptionalActions::Now, &settings);
    }
}
