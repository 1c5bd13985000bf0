//! SEMO Office: the desktop window. Windows, tray and notifications live here and no logic: the core is the same as
//! `semo up` runs, started inside.

#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

mod backend;
mod window;

fn main() {
    window::run();
}
