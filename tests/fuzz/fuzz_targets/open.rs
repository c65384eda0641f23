#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonelog_fuzz::targets::open(data));
