//! Stories, recordings, tidiness: one test binary.

mod claude_session;
mod faults;
mod generated;
mod office;
mod program;
mod protocol;
mod story;
mod stub;
mod tidy;
