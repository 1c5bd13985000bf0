//! A hub as a process of its own, for stories that kill it: `hub-alone FOLDER PORT`. Says where it is in one line of
//! JSON, then serves until it is told to end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use harness::clock::SystemClock;
use harness::remote::{EMAIL, PASSWORD};
use hub::{Hub, HubConfig};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("hub-alone FOLDER PORT")?);
    let port: u16 = arguments.next().context("hub-alone FOLDER PORT")?.parse()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let hub = Hub::start(HubConfig::new(folder, listen, Arc::new(SystemClock))).await?;
    hub.ensure_user(EMAIL, PASSWORD).await?;
    println!(
        "{}",
        json!({ "url": hub.url(), "key": hub.keys().publishable, "database": hub.database_url() })
    );
    terminate.recv().await;
    hub.stop().await?;
    Ok(())
}
