//! A frame of a socket, text or binary, in both serializers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub::fuzzing::realtime_frame(data));
