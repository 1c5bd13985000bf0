//! `semo`: everything without a window.

use std::process::ExitCode;

/// The system's own keeps what every thread has freed for that thread: over a day of work the core would grow to three
/// times its size.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
