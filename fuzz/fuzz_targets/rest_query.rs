//! The query string of a REST request, up to its SQL.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub::fuzzing::rest_query(data));
