//! The body of a REST request, in every type that is taken.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub::fuzzing::rest_body(data));
