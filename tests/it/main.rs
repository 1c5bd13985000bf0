//! Stories, recordings, tidiness: one test binary.

mod generated;
mod story;
mod stub;
mod tidy;
