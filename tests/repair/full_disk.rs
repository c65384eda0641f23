//! G10 for repairs: a full disk gives a clear error and loses nothing, and the ballast is enough for a
//! repair that only declares.

use stonelog::Error;
use stonelog::repair::{Basis, plan};

use crate::golden::load;
use crate::mended::{check, contents, repair, session, undo};

#[test]
fn a_repair_that_finds_no_space_changes_nothing() {
    let disk = load("head-zeroed-sealed");
    disk.set_capacity(Some(disk.used_bytes()));
    let before = contents(&disk);
    let session = session(&disk);
    let plan = plan(&session.survey(Basis::Manifest).unwrap(), None).unwrap();
    let error = session.apply(&plan, &[]).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert_eq!(contents(&disk), before);
    assert_eq!(session.pending().unwrap(), None);
    disk.set_capacity(None);
    session.apply(&plan, &[]).unwrap();
}

#[test]
fn a_repair_on_a_full_disk_takes_the_ballast() {
    let disk = load("frame-crc-sealed");
    // Golden logs are kept without their ballast; a log that was ever opened has it.
    disk.write_file("/log/MANIFEST.next", vec![0; 128 << 10]).unwrap();
    let before = contents(&disk);
    disk.set_capacity(Some(disk.used_bytes()));
    let plan = repair(&disk, Basis::Manifest, None).unwrap();
    undo(&disk, &before, "on a full disk");
    let plan = {
        repair(&disk, Basis::Manifest, None).unwrap();
        plan
    };
    disk.set_capacity(None);
    check(&disk, &plan, "on a full disk");
}
