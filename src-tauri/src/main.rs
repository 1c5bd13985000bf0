//! SEMO Office: the desktop window, and no logic: the core is the same as `semo up` runs, started inside.

#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

mod backend;
mod window;

/// The system's own keeps what every thread has freed for that thread: over a day of work the core would grow to three
/// times its size.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    window::run();
}
