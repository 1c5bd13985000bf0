//! `semo`: everything without a window.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
