//! What the fuzz targets do, and what they do it to.
//!
//! One place for both who call it: the fuzzers (`fuzz_targets/`), and `tests/hostile` of the main
//! workspace, which includes this folder by path and replays the seeds without a fuzzer. A target
//! takes bytes and panics where a promise breaks; nothing else is a failure.

pub mod bytes;
pub mod logs;
pub mod mend;
pub mod mutate;
pub mod reference;
pub mod targets;
