//! The layers, held: which module of `src` may name which, no circles, and the
//! absences that docs/ARCHITECTURE.md states (who does no I/O, who names no file of the system).
//!
//! It reads the sources as text: tests and comments aside, every `crate::x` counts.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests: a failed expectation is how they speak, and they read the sources from the real disk"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::recovery::{Depth, inspect};
use stonelog::{DamagePolicy, Options};

/// Which module may name which; lower layers first. An edge that is not here is a question to ask
/// before it is an edge to add.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("names", &[]),
    ("sync", &[]),
    ("frame", &[]),
    ("scan", &["frame"]),
    // Under `cfg(shuttle)` alone: a call of the simulated disk is a scheduling point.
    ("disk", &["sync"]),
    ("options", &["error", "frame", "disk"]),
    ("store", &["disk", "error", "frame", "names", "scan", "sync"]),
    ("carve", &["frame", "scan", "store"]),
    ("index", &["error", "frame", "sync"]),
    ("segment", &["disk", "error", "frame", "index", "names", "scan", "store", "sync"]),
    ("dropped", &["disk", "segment", "sync"]),
    ("segment_writer", &["error", "frame", "index", "store"]),
    ("manifest", &["disk", "error", "frame", "names", "scan"]),
    ("directory", &["disk", "error", "manifest"]),
    (
        "builder",
        &[
            "directory",
            "disk",
            "error",
            "frame",
            "index",
            "manifest",
            "names",
            "options",
            "segment",
            "segment_writer",
            "store",
        ],
    ),
    (
        "recovery",
        &[
            "disk",
            "error",
            "frame",
            "index",
            "manifest",
            "names",
            "options",
            "scan",
            "segment",
            "segment_writer",
            "store",
            "sync",
        ],
    ),
    (
        "repair",
        &[
            "disk", "error", "frame", "index", "manifest", "names", "options", "recovery", "scan", "segment",
            "store",
        ],
    ),
    ("table", &["error", "manifest", "names", "segment", "sync"]),
    ("group", &["error", "sync"]),
    ("mutant", &[]),
    // For this log's own benches alone.
    ("bench", &["frame", "index"]),
    ("signal", &["sync"]),
    ("ticket", &["commit", "error", "group"]),
    ("writer", &["error", "frame", "group", "index", "names", "options", "segment", "store", "sync"]),
    ("background", &["commit", "disk", "options", "signal", "sync"]),
    (
        "commit",
        &[
            "disk", "dropped", "error", "frame", "group", "manifest", "options", "segment", "signal",
            "store", "sync", "table", "writer",
        ],
    ),
    (
        "structure",
        &[
            "commit", "disk", "error", "manifest", "names", "options", "segment", "signal", "store", "sync",
            "table", "writer",
        ],
    ),
    ("stats", &["commit", "table"]),
    ("reader", &["commit", "disk", "error", "frame", "segment", "store", "sync"]),
    (
        "open",
        &[
            "commit",
            "directory",
            "disk",
            "error",
            "manifest",
            "names",
            "options",
            "recovery",
            "repair",
            "segment",
            "store",
            "sync",
            "table",
            "writer",
        ],
    ),
    (
        "log",
        &[
            "background",
            "commit",
            "disk",
            "error",
            "frame",
            "group",
            "manifest",
            "open",
            "options",
            "reader",
            "recovery",
            "signal",
            "stats",
            "store",
            "sync",
            "table",
            "ticket",
            "writer",
        ],
    ),
];

struct Source {
    path: String,
    module: String,
    /// Without comments and tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let named = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        let module = path.split('/').next().unwrap().trim_end_matches(".rs").to_string();
        Source { path, module, code: code_of(&text) }
    };
    files.into_iter().map(named).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

/// The text without comments and without what is behind `#[cfg(test)]` at the left margin (by
/// convention the last item, or a `mod tests;`).
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            let item = lines.next().unwrap_or_default();
            if item.ends_with('{') {
                for inner in lines.by_ref() {
                    if inner == "}" {
                        break;
                    }
                }
            }
            continue;
        }
        let line = match line.find("//") {
            // An address in a string is no comment.
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        };
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// The modules that a source names after `crate::`, in a path or in braces.
fn named_modules(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + found.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut heads = Vec::new();
            let mut is_head = true;
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        heads.push(std::mem::take(&mut word));
                        is_head = true;
                    }
                    ':' => is_head = false,
                    c if depth == 0 && is_head && (c.is_alphanumeric() || c == '_') => word.push(c),
                    _ => {}
                }
            }
            heads.push(word);
            named.extend(heads.into_iter().filter(|head| !head.is_empty()));
        } else {
            named.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    named
}

fn edges() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut edges: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for source in sources().into_iter().filter(|source| source.module != "lib") {
        let from = edges.entry(source.module.clone()).or_default();
        for named in named_modules(&source.code) {
            // The switch that breaks a rule on purpose is asked wherever there is a rule.
            if named != source.module && named != "mutant" {
                from.entry(named).or_insert_with(|| source.path.clone());
            }
        }
    }
    edges
}

#[test]
fn only_the_allowed_edges() {
    let mut wrong = Vec::new();
    for (from, named) in edges() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(module, _)| *module == from) else {
            wrong.push(format!("module {from} has no row: it names {:?}", named.keys().collect::<Vec<_>>()));
            continue;
        };
        for (to, path) in named {
            if !allowed.contains(&to.as_str()) {
                wrong.push(format!("{path} names crate::{to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not in the table of allowed edges:\n  {}", wrong.join("\n  "));
}

#[test]
fn no_circles() {
    let edges = edges();
    let reach = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from.to_string()];
        while let Some(at) = next.pop() {
            let named = edges.get(&at).into_iter().flat_map(BTreeMap::keys);
            for to in named {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|from| (from, reach(from))).collect();
    let mut circles = BTreeSet::new();
    for (from, to) in &reached {
        if to.contains(*from) {
            let circle: Vec<&str> = reached
                .iter()
                .filter(|(other, back)| to.contains(**other) && back.contains(*from))
                .map(|(other, _)| other.as_str())
                .collect();
            circles.insert(circle);
        }
    }
    assert!(circles.is_empty(), "circles: {circles:?}");
}

fn who_names(needle: &str) -> Vec<String> {
    sources().into_iter().filter(|source| source.code.contains(needle)).map(|source| source.path).collect()
}

#[test]
fn the_system_is_named_in_one_place() {
    for needle in ["std::fs", "fs2", "std::process", "SystemTime", "RandomState", "std::env", "std::net"] {
        let named = who_names(needle);
        // The mutants' switch is in the environment; it is compiled for the tests alone.
        let is_switch = |path: &str| needle == "std::env" && path == "mutant.rs";
        assert!(
            named.iter().all(|path| path == "disk/os.rs" || is_switch(path)),
            "{needle} is named in {named:?}"
        );
    }
    for needle in ["std::thread", "arc_swap", "shuttle::"] {
        let named = who_names(needle);
        assert!(named.iter().all(|path| path == "sync.rs"), "{needle} is named in {named:?}");
    }
    let mapped = who_names("memmap2");
    assert!(mapped.iter().all(|path| path == "disk/os.rs" || path == "disk/map.rs"), "{mapped:?}");
    assert!(
        who_names("Instant").is_empty(),
        "nothing is decided by elapsed time: {:?}",
        who_names("Instant")
    );
    let not_safe: Vec<_> = sources()
        .into_iter()
        .filter(|source| {
            source.code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
        })
        .map(|source| source.path)
        .collect();
    assert_eq!(not_safe, ["disk/map.rs"], "unsafe stands in one module");
}

/// The pure ones do no I/O, read no clock, draw no random number, start no thread.
#[test]
fn what_is_pure_stays_pure() {
    let pure = [
        "frame.rs",
        "frame/tail.rs",
        "scan.rs",
        "scan/prefix.rs",
        "scan/window.rs",
        "carve.rs",
        "manifest/edit.rs",
        "manifest/state.rs",
        "recovery/plan.rs",
        "recovery/damage.rs",
        "recovery/verdict.rs",
        "recovery/findings.rs",
        "recovery/report.rs",
        "repair/action.rs",
        "repair/journal.rs",
        "repair/plan.rs",
        "repair/rebuild.rs",
    ];
    let impure = [
        "crate::disk",
        "Disk",
        "OpenMode",
        "now_millis",
        "random()",
        "std::fs",
        "std::time",
        "std::thread",
        "std::net",
        "read_at",
        "write_at",
        ".sync(",
        "println!",
        "Mutex",
        "Atomic",
    ];
    let sources = sources();
    for path in pure {
        let source =
            sources.iter().find(|source| source.path == path).unwrap_or_else(|| panic!("{path} is gone"));
        for word in impure {
            assert!(!source.code.contains(word), "{path} names {word}");
        }
    }
}

#[test]
fn who_does_not_know_whom() {
    for (module, strangers) in [
        ("store", &["index", "segment", "manifest", "recovery", "log"][..]),
        ("segment", &["manifest", "recovery", "log", "writer", "commit"]),
        ("manifest", &["store", "index", "segment", "recovery", "log"]),
        ("disk", &["frame", "store", "manifest", "log"]),
        ("recovery", &["log", "writer", "commit", "structure", "reader"]),
        ("reader", &["manifest", "structure", "recovery"]),
    ] {
        for stranger in strangers {
            assert!(!edges()[module].contains_key(*stranger), "{module} knows {stranger}");
        }
    }
}

/// `inspect` has no way to write, and does not.
#[test]
fn inspect_never_writes() {
    let sources = sources();
    let source = sources.iter().find(|source| source.path == "recovery/inspect.rs").unwrap();
    for word in [
        "write",
        "set_length",
        "rename",
        "remove",
        "create",
        "CreateNew",
        "ReadWrite",
        "reserve",
        ".lock(",
        ".sync",
        "sync_dir",
        ".map(length",
        "File::",
    ] {
        assert!(!source.code.contains(word), "inspect.rs names {word}");
    }

    let disk = SimDisk::new(3);
    let options = || Options::new().disk(Arc::new(disk.clone())).segment_bytes(4096);
    let log = options().open("/log").unwrap();
    for number in 0..60u8 {
        log.append(vec![number; 150]).unwrap();
    }
    let check = |disk: &SimDisk| {
        let (mutations, digest) = (disk.mutations(), disk.digest());
        for depth in [Depth::Opening, Depth::Everything] {
            inspect(disk, Path::new("/log"), depth).unwrap();
        }
        for policy in [DamagePolicy::Refuse, DamagePolicy::Serve] {
            let options = Options::new().disk(Arc::new(disk.clone())).on_damage(policy);
            if let Ok(log) = options.open_read_only("/log") {
                let _ = log.records(..).count();
            }
        }
        assert_eq!((disk.mutations(), disk.digest()), (mutations, digest));
    };
    check(&disk);
    let crashed = disk.fork();
    crashed.power_loss(Loss::Seeded(1));
    check(&crashed);
    crashed.flip_bit("/log/0000000000000001.store", 1100, 1).unwrap();
    check(&crashed);
    log.close().unwrap();
    check(&disk);
}

#[test]
fn the_reading_of_sources_reads() {
    let code = code_of(
        "use crate::{a, b::{c, d}, e::f};\n// crate::no\nlet x = crate::g::h(\"http://x\");\n#[cfg(test)]\nmod tests {\n    use crate::z;\n}\nfn i() { crate::j() }\n",
    );
    let named: Vec<String> = named_modules(&code).into_iter().collect();
    assert_eq!(named, ["a", "b", "e", "g", "j"]);
    assert!(sources().len() > 20);
}
