//! Stores under other names, and whatever lies under theirs.

use stonelog::disk::sim::SimDisk;
use stonelog::names;
use stonelog::repair::{Action, Basis, plan};

use crate::common::{content, path};
use crate::golden::load;
use crate::mended::{check, contents, repair, session, undo};

fn store(id: u64) -> String {
    path(&names::store(id))
}

/// Repairs without a loss, and takes it back; `renamed` says whether a store gets its name back.
fn repaired(disk: &SimDisk, name: &str, renamed: bool) {
    let before = contents(disk);
    let plan = repair(disk, Basis::Manifest, None).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(plan.loss.is_nothing(), "{name}: {plan:?}");
    let misnamed =
        |action: &Action| matches!(action, Action::RewriteStore { mend } if mend.misnamed.is_some());
    assert_eq!(plan.actions.iter().any(misnamed), renamed, "{name}: {plan:?}");
    let records = check(disk, &plan, name);
    assert!(records.keys().copied().eq(0..70), "{name}: {:?}", records.keys());
    assert!(records.iter().all(|(offset, bytes)| *bytes == content(*offset)), "{name}");
    undo(disk, &before, name);
}

/// G11. A store comes back to its name, and what had taken that, though it is none of the log's, is kept.
#[test]
fn what_lies_under_a_stores_name_is_kept() {
    for (name, bytes) in [("nothing", Vec::new()), ("text", b"not a store\n".repeat(500))] {
        for log in ["closed", "unclean"] {
            let disk = load(log);
            disk.copy_file(store(1), store(0xff)).unwrap();
            disk.write_file(store(1), &bytes).unwrap();
            repaired(&disk, &format!("{log}, {name}"), true);
        }
    }
}

/// G5. A base that is gone leaves the frames to say whose a store is, where no name tells of its segment any more.
#[test]
fn frames_say_whose_a_misnamed_store_is() {
    let disk = load("closed");
    disk.copy_file(store(2), store(9)).unwrap();
    disk.zero(store(9), 512..1024).unwrap();
    for name in [names::store(2), names::index(2)] {
        disk.remove_file(path(&name)).unwrap();
    }
    // In the MANIFEST a named value is damaged; what it says of the base is intact.
    let manifest = disk.read_file(path("MANIFEST")).unwrap();
    let key = manifest.windows(4).position(|bytes| bytes == b"vote").unwrap();
    disk.flip_bit(path("MANIFEST"), key as u64, 0).unwrap();
    repaired(&disk, "no base", true);
}

/// G5. A store whose head is gone is still its segment's: no copy of it, with its head, comes before it.
#[test]
fn a_stray_copy_replaces_no_store_that_holds_its_frames() {
    let disk = load("closed");
    disk.copy_file(store(1), store(0xff)).unwrap();
    disk.zero(store(0xff), 2048..2560).unwrap();
    disk.zero(store(1), 0..512).unwrap();
    repaired(&disk, "a stray copy", false);
}

/// A store that is taken out is judged as what it holds, whatever its name: a plan once said of one whose records it
/// copied, and of one whose records have no place, that the log had let go of it before.
#[test]
fn a_plan_says_what_a_store_that_it_takes_out_holds() {
    let why = |disk: &SimDisk, id: u64| {
        let survey = session(disk).survey(Basis::Manifest).unwrap();
        let actions = plan(&survey, None).unwrap().actions;
        let out = actions.iter().find_map(|action| match action {
            Action::TakeOut { name, why } if *name == names::store(id) => Some(*why),
            _ => None,
        });
        out.unwrap_or_else(|| panic!("{id} is not taken out: {actions:?}"))
    };
    let copied = load("unclean");
    copied.copy_file(store(3), store(9)).unwrap();
    copied.remove_file(store(3)).unwrap();
    assert_eq!(why(&copied, 9), "its records are copied");
    for name in [1, 9] {
        let unplaced = load("closed");
        unplaced.remove_file(path("MANIFEST")).unwrap();
        unplaced.zero(store(1), 512..1024).unwrap();
        if name != 1 {
            unplaced.copy_file(store(1), store(name)).unwrap();
            unplaced.remove_file(store(1)).unwrap();
        }
        assert_eq!(why(&unplaced, name), "it holds records, and nothing tells where they belong");
    }
}
