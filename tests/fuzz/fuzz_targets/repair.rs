#![no_main]

use stonelog_fuzz as shared;

#[path = "../src/repair.rs"]
mod repair;

libfuzzer_sys::fuzz_target!(|data: &[u8]| repair::repair(data));
