//! The real disk does what the trait `Disk` says, on the filesystem that this test runs on. What it does
//! when it is full is in tests/kill/small_disk.rs, which makes filesystems to fill.
#![expect(clippy::disallowed_methods, reason = "the real filesystem is what is tested here")]
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panic, as the tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use std::path::Path;
use std::sync::Arc;

use stonelog::disk::{
    Background, Disk, DiskFile, LockAttempt, OpenMode, OsDisk, read_exact_at, read_up_to, write_all_at,
};

fn open(path: &Path, mode: OpenMode) -> Arc<dyn DiskFile> {
    OsDisk.open(path, mode).unwrap()
}

fn contents(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    read_exact_at(file, &mut bytes, 0).unwrap();
    bytes
}

#[test]
fn files_are_opened_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    assert_eq!(OsDisk.open(&path, OpenMode::Read).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(OsDisk.open(&path, OpenMode::ReadWrite).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!OsDisk.exists(&path).unwrap());

    let file = open(&path, OpenMode::CreateNew);
    assert_eq!(OsDisk.open(&path, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(OsDisk.exists(&path).unwrap());
    write_all_at(&*file, b"stone", 3).unwrap();
    file.sync().unwrap();
    OsDisk.sync_dir(dir.path()).unwrap();

    let reader = open(&path, OpenMode::Read);
    assert_eq!(contents(&*reader), b"\0\0\0stone");
    assert!(reader.write_at(b"x", 0).is_err());
    let mut buffer = [0; 16];
    assert_eq!(read_up_to(&*reader, &mut buffer, 6).unwrap(), 2);
    assert_eq!(read_up_to(&*reader, &mut buffer, 100).unwrap(), 0);
    assert_eq!(read_exact_at(&*reader, &mut buffer, 0).unwrap_err().kind(), ErrorKind::UnexpectedEof);

    file.set_length(4).unwrap();
    file.set_length(6).unwrap();
    assert_eq!(contents(&*reader), b"\0\0\0s\0\0");
}

#[test]
fn directories_are_made_and_listed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    OsDisk.create_dir(&log).unwrap();
    assert_eq!(OsDisk.create_dir(&log).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let deep = dir.path().join("a").join("b");
    assert_eq!(OsDisk.create_dir(&deep).unwrap_err().kind(), ErrorKind::NotFound);

    for name in ["c", "a", "b"] {
        write_all_at(&*open(&log.join(name), OpenMode::CreateNew), name.as_bytes(), 9).unwrap();
    }
    OsDisk.create_dir(&log.join("quarantine")).unwrap();
    OsDisk.rename(&log.join("c"), &log.join("b")).unwrap();
    OsDisk.remove(&log.join("a")).unwrap();
    OsDisk.sync_dir(&log).unwrap();
    let seen: Vec<_> = OsDisk.list(&log).unwrap();
    let seen: Vec<_> =
        seen.iter().map(|entry| (entry.name.as_str(), entry.is_directory, entry.length)).collect();
    assert_eq!(seen, [("b", false, 10), ("quarantine", true, 0)]);
    assert_eq!(contents(&*open(&log.join("b"), OpenMode::Read)), b"\0\0\0\0\0\0\0\0\0c");
    assert_eq!(OsDisk.remove(&log.join("a")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(OsDisk.list(&log.join("nowhere")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    let names: Vec<_> = OsDisk.list(dir.path()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["link"]);
}

#[test]
fn reserve_keeps_existing_bytes_and_never_shortens() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("file"), OpenMode::CreateNew);
    write_all_at(&*file, &[7; 5000], 0).unwrap();

    file.reserve(100_000).unwrap();
    assert_eq!(file.length().unwrap(), 100_000);
    file.reserve(1000).unwrap();
    file.reserve(0).unwrap();
    assert_eq!(file.length().unwrap(), 100_000);

    let bytes = contents(&*file);
    assert!(bytes[..5000].iter().all(|byte| *byte == 7));
    assert!(bytes[5000..].iter().all(|byte| *byte == 0));
}

/// Holes below the length are filled, though the file is longer than what is asked for.
#[cfg(target_os = "linux")]
#[test]
fn reserve_fills_holes() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = open(&path, OpenMode::CreateNew);
    file.set_length(4 << 20).unwrap();
    write_all_at(&*file, &[7; 4096], (4 << 20) - 4096).unwrap();
    file.reserve(2 << 20).unwrap();
    assert_eq!(file.length().unwrap(), 4 << 20);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 2 << 20);
    assert!(contents(&*file)[(4 << 20) - 4096..].iter().all(|byte| *byte == 7));
}

/// Whatever the page cache holds of a file and the disk does not: bytes just written, over holes and over reserved space.
#[test]
fn reads_past_the_cache_show_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("file"), OpenMode::CreateNew);
    file.reserve(100_000).unwrap();
    file.set_length(150_001).unwrap();
    let pattern: Vec<u8> = (0..30_000u32).map(|number| (number % 251) as u8 | 1).collect();
    for round in 0..3 {
        for position in [0, 5_000, 70_003, 120_000] {
            write_all_at(&*file, &pattern[round * 100..], position + round as u64 * 1_000).unwrap();
        }
        for position in [
            0, 1, 511, 512, 4_095, 4_096, 40_960, 65_537, 99_999, 119_000, 149_999, 150_000, 150_001, 200_000,
        ] {
            for length in [0, 1, 16, 4_095, 4_096, 8_192, 12_289, 70_000, 200_000] {
                let (mut usual, mut past) = (vec![9; length], vec![8; length]);
                let count = file.read_at(&mut usual, position).unwrap();
                assert_eq!(
                    file.read_past_cache_at(&mut past, position).unwrap(),
                    count,
                    "{length} at {position}"
                );
                assert_eq!(usual[..count], past[..count], "{length} at {position}");
            }
        }
        if round == 1 {
            file.sync().unwrap();
        }
    }
}

#[test]
fn a_reservation_that_fails_leaves_the_file_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = open(&path, OpenMode::CreateNew);
    write_all_at(&*file, b"stone", 0).unwrap();
    assert_eq!(file.reserve(u64::MAX).unwrap_err().kind(), ErrorKind::FileTooLarge);
    let reader = open(&path, OpenMode::Read);
    let error = reader.reserve(1 << 20).unwrap_err();
    assert_ne!(error.raw_os_error(), Some(0), "{error}");
    assert_eq!(contents(&*file), b"stone");
}

#[test]
fn a_held_lock_names_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LOCK");
    // Left by an earlier, longer life.
    fs::write(&path, "4294967295\nand more\n").unwrap();
    let LockAttempt::Acquired(guard) = OsDisk.lock(&path).unwrap() else { panic!("the lock is free") };
    let LockAttempt::Held { pid } = OsDisk.lock(&path).unwrap() else { panic!("the lock is held") };
    assert_eq!(pid, Some(OsDisk.process_id()));
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));

    drop(guard);
    assert!(OsDisk.exists(&path).unwrap(), "the lock file stays");
    let LockAttempt::Acquired(_guard) = OsDisk.lock(&path).unwrap() else {
        panic!("the lock was given back")
    };

    // Whatever stands in the file is never more than a hint.
    for text in ["", "stone", "0\n", "-1", "99999999999999999999"] {
        fs::write(&path, text).unwrap();
        assert!(matches!(OsDisk.lock(&path).unwrap(), LockAttempt::Held { pid: None }), "{text:?}");
    }
}

#[test]
fn the_machine_is_described() {
    let numbers: BTreeSet<_> = (0..1000).map(|_| OsDisk.random()).collect();
    assert_eq!(numbers.len(), 1000);
    assert!(OsDisk.now_millis() > 1_600_000_000_000);
    assert_eq!(OsDisk.process_id(), std::process::id());
    assert_eq!(OsDisk.background(), Background::Threads);
}

/// A pipe under the name of a store that was dropped holds up no opening.
#[cfg(target_os = "linux")]
#[test]
fn a_pipe_under_a_stores_name_is_not_waited_at() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = stonelog::Log::open(&path).unwrap();
    log.append(b"a").unwrap();
    log.truncate_front(5).unwrap();
    log.append(b"b").unwrap();
    log.close().unwrap();
    drop(log);
    let name = path.join("0000000000000001.store");
    assert!(!name.exists());
    match std::process::Command::new("mkfifo").arg(&name).status() {
        Ok(made) if made.success() => {}
        _ => return eprintln!("SKIPPED: there is no mkfifo"),
    }
    let log = stonelog::Log::open(&path).unwrap();
    assert_eq!(log.offsets(), 5..6);
    assert!(!name.exists());
}
