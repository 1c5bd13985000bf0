//! The `filter` of a subscription to row changes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub::fuzzing::realtime_filter(data));
