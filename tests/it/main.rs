//! Stories, recordings, tidiness: one test binary.

mod stub;
mod tidy;
