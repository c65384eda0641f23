//! Stonelog's own benches, a module for each layer:
//!
//! ```text
//! cargo bench -p stonelog-benches --bench layers                    # all of them, under two minutes
//! cargo bench -p stonelog-benches --bench layers -- '^frame|^scan'  # those whose names match
//! STONELOG_BENCH_DIR=DIR cargo bench ...             # files somewhere else than in the temporary directory
//! ```
//!
//! They are for comparing one commit with another on one machine (`benches/compare`). What the engine reaches
//! of the machine's own limits, `cargo bench -p stonelog-benches --bench limits` shows. Each checks what it did before its time counts.
//!
//! What a bench needs is made when it is first run: those that the name leaves out cost nothing. All samples are
//! equally long (`SamplingMode::Flat`), so that the fastest of them is one like the others.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench measures the real machine, and stops at the first surprise"
)]

mod append;
mod commit;
mod frame;
mod index;
mod open;
mod read;
mod scan;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Short, so that all of them are run: a comparison repeats them in turns, which tells more than one long run.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = layers;
    config = short();
    targets = frame::bench, scan::bench, index::bench, append::bench, commit::bench, read::bench, open::bench
}
criterion_main!(layers);
