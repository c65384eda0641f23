//! Every way to break the engine that `src/mutant.rs` lists is caught, and by which tests.
//!
//! The tables in docs/TESTING.md are made here: `STONELOG_MUTANTS=all` runs a whole suite against each of its
//! mutants and writes them. Without that, each row's test is run against its mutant, and must fail. A mutant
//! that no test catches is a hole in the tests. A suite runs itself anew, so each has a table of its own.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stonelog::mutant::Mutant;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/TESTING.md");
const END: &str = "<!-- /mutants -->\n";
/// A mutant may leave somebody asleep for ever: then the child is ended, which counts as caught.
const MOST_WAITS: u32 = 1800;
const WAIT: Duration = Duration::from_millis(100);

/// A test binary, and the mutants that its tests must catch: those of which the names begin so, or all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// tests/invariants.
    Invariants,
    /// tests/repair: the mutants called `repair-...`.
    Repair,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Suite::Invariants => "invariants",
            Suite::Repair => "repair",
        }
    }

    fn begin(self) -> String {
        let name = self.name();
        format!("<!-- mutants: made by STONELOG_MUTANTS=all cargo test --test {name} mutants -->\n")
    }

    fn mutants(self) -> Vec<Mutant> {
        let is_repairs = |mutant: &&Mutant| mutant.name().starts_with("repair-");
        Mutant::ALL.iter().filter(|mutant| is_repairs(mutant) == (self == Suite::Repair)).copied().collect()
    }
}

/// How this binary ended with a mutant on.
struct Outcome {
    failed: Vec<String>,
    survived: bool,
    slept: bool,
}

fn run(mutant: Option<Mutant>, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env_remove("STONELOG_MUTANTS").env("RUST_BACKTRACE", "0");
    // What a property test finds against a mutant is no finding.
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    command.env("STONELOG_MUTANT", mutant.map_or("none", Mutant::name));
    let mut child = command.spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).map(|_| text).unwrap_or_default()
    });
    let (survived, slept) = match wait(&mut child) {
        Some(success) => (success, false),
        None => (false, true),
    };
    let text = reader.join().unwrap();
    let failed = text.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    Outcome { failed: failed.map(str::to_string).collect(), survived, slept }
}

/// Whether it succeeded; `None` where it had to be ended.
fn wait(child: &mut Child) -> Option<bool> {
    for _ in 0..MOST_WAITS {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.success());
        }
        std::thread::sleep(WAIT);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// Runs `work` for every mutant, two at a time.
fn for_each_mutant<T: Send>(suite: Suite, work: impl Fn(Mutant) -> T + Sync) -> Vec<(Mutant, T)> {
    let mutants = suite.mutants();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(number) else { return };
                    let result = work(*mutant);
                    done.lock().unwrap().push((number, *mutant, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(number, ..)| *number);
    done.into_iter().map(|(_, mutant, result)| (mutant, result)).collect()
}

/// The rows of the table: a mutant's name, and the test that catches it.
fn rows(suite: Suite, page: &str) -> Vec<(String, String)> {
    let (_, behind) = page.split_once(&suite.begin()).expect("docs/TESTING.md has no table of mutants");
    let (table, _) = behind.split_once(END).expect("the table of mutants has no end");
    let cells = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        Some(((*cells.get(1)?).to_string(), (*cells.get(4)?).to_string()))
    };
    table.lines().skip(2).filter_map(cells).collect()
}

/// Runs each row's test against its mutant, and demands that it fails; or makes the table.
///
/// # Panics
/// If a mutant survives.
pub fn every_mutant_is_caught(suite: Suite) {
    if std::env::var_os("STONELOG_MUTANT").is_some() {
        return; // This is a child.
    }
    if std::env::var("STONELOG_MUTANTS").is_ok_and(|what| what == "all") {
        return write_table(suite);
    }
    #[allow(clippy::disallowed_methods, reason = "the page is on the real disk")]
    let page = std::fs::read_to_string(PAGE).unwrap();
    let rows = rows(suite, &page);
    let told: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    let mutants = suite.mutants();
    let all: Vec<&str> = mutants.iter().map(|mutant| mutant.name()).collect();
    assert_eq!(told, all, "the table in docs/TESTING.md is of other mutants: make it anew");
    let survivors: Vec<String> = for_each_mutant(suite, |mutant| {
        let (_, test) = rows.iter().find(|(name, _)| name == mutant.name()).unwrap();
        let outcome = run(Some(mutant), &["--exact", test]);
        let caught = !outcome.survived;
        let how = if caught { "caught by" } else { "SURVIVES" };
        let _ = writeln!(std::io::stderr(), "mutant {:24} {how} {test}", mutant.name());
        (!caught).then(|| format!("{} survives {test}", mutant.name()))
    })
    .into_iter()
    .filter_map(|(_, survivor)| survivor)
    .collect();
    assert!(survivors.is_empty(), "{survivors:#?}");
}

/// What is random, or takes long, is not what a row names if there is another.
fn rank(test: &str) -> (bool, bool, &str) {
    (test.starts_with("g09_"), test.starts_with("worlds::"), test)
}

fn write_table(suite: Suite) {
    let sound = run(None, &["--skip", "mutants::"]);
    assert!(sound.survived, "without a mutant these fail: {:?}", sound.failed);
    let outcomes = for_each_mutant(suite, |mutant| {
        let outcome = run(Some(mutant), &["--skip", "mutants::"]);
        let _ = writeln!(std::io::stderr(), "mutant {}: {:?}", mutant.name(), outcome.failed);
        outcome
    });
    let mut table = String::from(
        "| mutant | what is broken | promises whose tests fail | one of these tests |\n|---|---|---|---|\n",
    );
    let mut survivors = Vec::new();
    for (mutant, outcome) in outcomes {
        let modules: BTreeSet<&str> =
            outcome.failed.iter().map(|test| test.split(['_', ':']).next().unwrap_or(test)).collect();
        let mut modules = modules.into_iter().map(promise).collect::<Vec<_>>().join(", ");
        if outcome.slept {
            modules.push_str("; some never end");
        }
        match outcome.failed.iter().map(String::as_str).min_by_key(|test| rank(test)) {
            Some(test) => table.push_str(&format!(
                "| `{}` | {} | {modules} ({}) | `{test}` |\n",
                mutant.name(),
                mutant.what(),
                outcome.failed.len(),
            )),
            None => survivors.push(mutant.name()),
        }
    }
    assert!(survivors.is_empty(), "nothing catches {survivors:?}");
    #[allow(clippy::disallowed_methods, reason = "the page is on the real disk")]
    {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (before, behind) =
            page.split_once(&suite.begin()).expect("docs/TESTING.md has no table of mutants");
        let (_, after) = behind.split_once(END).expect("the table of mutants has no end");
        std::fs::write(PAGE, format!("{before}{}{table}{END}{after}", suite.begin())).unwrap();
    }
}

fn promise(module: &str) -> String {
    match module.strip_prefix('g').and_then(|number| number.parse::<u8>().ok()) {
        Some(number) => format!("G{number}"),
        None => module.to_string(),
    }
}
