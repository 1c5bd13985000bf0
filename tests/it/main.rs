//! Stories, recordings, tidiness: one test binary.

mod asks;
mod claude_asks;
mod claude_input;
mod claude_session;
mod claude_truth;
mod faults;
mod generated;
mod office;
mod pool;
mod pool_ends;
mod program;
mod protocol;
mod recordings;
mod screen_turns;
mod scripted;
mod story;
mod stub;
mod tidy;
