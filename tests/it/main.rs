//! Stories, recordings, tidiness: one test binary.

mod faults;
mod generated;
mod program;
mod story;
mod stub;
mod tidy;
