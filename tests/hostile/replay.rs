//! Every committed seed, and what proptest makes, through the bodies of the fuzz targets.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::property;
use crate::shared::{mend, targets};

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 6] = [
    ("frame", targets::frame),
    ("scan", targets::scan),
    ("manifest", targets::manifest),
    ("index", targets::index),
    ("open", targets::open),
    ("mend", mend::mend),
];

/// The seeds of a target: name and bytes.
pub fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn replay(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(other, _)| *other == name).unwrap();
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "no seeds of {name}");
    for (path, bytes) in seeds {
        // Printed, and so shown only when it fails: run the fuzzer on this file to look closer.
        println!("cargo fuzz run --fuzz-dir tests/fuzz -s none {name} {}", path.display());
        target(&bytes);
    }
}

#[test]
fn seeds_of_frame() {
    replay("frame");
}

#[test]
fn seeds_of_scan() {
    replay("scan");
}

#[test]
fn seeds_of_manifest() {
    replay("manifest");
}

#[test]
fn seeds_of_index() {
    replay("index");
}

#[test]
fn seeds_of_open() {
    replay("open");
}

#[test]
fn seeds_of_mend() {
    replay("mend");
}

fn config(cases: u32) -> ProptestConfig {
    property::config(cases, Some(concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/hostile.txt")))
}

fn input(most: usize) -> impl Strategy<Value = Vec<u8>> {
    // Small bytes are small numbers and frequent choices: half of the inputs prefer them.
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..most),
        prop::collection::vec(prop_oneof![0u8..32, any::<u8>()], 0..most),
    ]
}

proptest! {
    #![proptest_config(config(4000))]

    #[test]
    fn frames(data in input(80)) {
        targets::frame(&data);
    }

    #[test]
    fn scans(data in input(400)) {
        targets::scan(&data);
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn manifests(data in input(200)) {
        targets::manifest(&data);
    }

    #[test]
    fn indexes(data in input(100)) {
        targets::index(&data);
    }

    #[test]
    fn directories(data in input(120)) {
        targets::open(&data);
    }

    #[test]
    fn repairs(data in input(120)) {
        mend::mend(&data);
    }
}
