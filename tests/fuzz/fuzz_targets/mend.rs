#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonelog_fuzz::mend::mend(data));
