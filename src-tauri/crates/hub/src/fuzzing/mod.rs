//! Entries for cargo-fuzz: what strangers send, read as far as it gets without a database or a socket.
//!
//! Only with the feature `fuzzing` and in tests, never part of a program. Each entry takes any bytes and may only
//! return; what it finds wrong it panics about.

pub(crate) mod sql;

pub use crate::realtime::fuzzing::{realtime_filter, realtime_frame};
pub use crate::rest::fuzzing::{rest_body, rest_query};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    type Entry = fn(&[u8]);

    /// Every input the fuzzer starts from, and every one it once found a fault with.
    #[test]
    fn every_seed_of_the_fuzzer_passes() {
        let entries: [(&str, Entry); 4] = [
            ("realtime_filter", realtime_filter),
            ("realtime_frame", realtime_frame),
            ("rest_body", rest_body),
            ("rest_query", rest_query),
        ];
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/seeds");
        for (target, entry) in entries {
            let files = std::fs::read_dir(seeds.join(target)).unwrap();
            let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
            assert!(files.len() >= 5, "{target} has only {} seeds", files.len());
            for file in files {
                println!("{}", file.display());
                entry(&std::fs::read(&file).unwrap());
            }
        }
    }
}
