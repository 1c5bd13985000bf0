//! The stub as a program, for tests in other languages: prints its address and runs until it is ended.
//!
//!     stub-anthropic [PORT]

use std::io::Write;

use harness::stub::Stub;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 0,
    };
    let stub = Stub::start_on(port).await?;
    println!("stub on {}", stub.url());
    std::io::stdout().flush()?;
    tokio::signal::ctrl_c().await?;
    stub.stop().await;
    Ok(())
}
