//! The machine around the medium: crashes, steps, traces, forks, locks, damage at rest, digests.

use super::*;

#[test]
fn a_crash_stops_everything_until_the_boot() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"one");
    disk.crash_at_mutation(2);
    assert_eq!(file.write_at(b"two", 3).unwrap(), 3);
    assert_eq!(read(&*file), b"onetwo");
    assert!(!disk.has_crashed());
    assert!(is_crash(file.sync()));
    assert!(disk.has_crashed());
    let steps = disk.steps();
    assert!(
        is_crash(file.length()) && is_crash(disk.list(Path::new("/"))) && is_crash(disk.lock(Path::new("l")))
    );
    assert_eq!(disk.steps(), steps, "a disk that is down does no steps");
    disk.power_loss(Loss::Nothing);
    assert!(!disk.has_crashed());
    assert!(is_crash(file.length()), "the handle stays dead");
    assert_eq!(read(&*disk.open(Path::new("a"), OpenMode::Read).unwrap()), b"one", "the sync did not happen");
}

#[test]
fn the_crashing_write_leaves_nothing_or_where_asked_a_prefix() {
    let lengths = |partly| -> BTreeSet<u64> {
        let length = |seed| {
            let disk = SimDisk::new(seed);
            let file = durable(&disk, "a", b"");
            disk.crash_mid_write(partly);
            disk.crash_at_mutation(1);
            assert!(is_crash(file.write_at(&[1, 2, 3], 0)));
            disk.process_crash();
            let bytes = disk.read_file("a").unwrap();
            assert!([1, 2, 3].starts_with(&bytes));
            bytes.len() as u64
        };
        (0..100).map(length).collect()
    };
    assert_eq!(lengths(false), BTreeSet::from([0]));
    assert_eq!(lengths(true), BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn every_call_is_a_step_and_mutations_are_counted_apart() {
    let disk = SimDisk::new(1);
    let root = Path::new("/");
    disk.create_dir(Path::new("d")).unwrap();
    let file = create(&disk, "a");
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    file.set_length(0).unwrap();
    file.reserve(1).unwrap();
    rename(&disk, "a", "b");
    disk.remove(Path::new("b")).unwrap();
    disk.sync_dir(root).unwrap();
    drop(disk.lock(Path::new("LOCK")).unwrap());
    assert_eq!((disk.steps(), disk.mutations()), (10, 10));
    disk.list(root).unwrap();
    disk.exists(root).unwrap();
    file.length().unwrap();
    file.read_at(&mut [0], 0).unwrap();
    disk.open(Path::new("none"), OpenMode::Read).unwrap_err();
    assert_eq!((disk.steps(), disk.mutations()), (15, 10));
    let _ = (disk.now_millis(), disk.random(), disk.process_id(), disk.background());
    assert_eq!(disk.steps(), 15);
}

#[test]
fn the_same_seed_and_calls_give_the_same_trace() {
    let run = |seed: u64| {
        let disk = SimDisk::new(seed);
        disk.record_trace(true);
        disk.inject(Fault::ShortWrites);
        scribble(&disk, 5, 200);
        disk.crash_at_mutation(3);
        scribble(&disk, 6, 20);
        disk.power_loss(Loss::Seeded(4));
        scribble(&disk, 7, 50);
        let lines: Vec<String> = disk.trace().iter().map(ToString::to_string).collect();
        (disk.trace(), lines, disk.digest(), disk.random(), disk.now_millis())
    };
    let (trace, lines, ..) = run(1);
    assert!(trace.len() > 200);
    assert!(trace.iter().any(|entry| entry.outcome == Outcome::Crashed), "{lines:#?}");
    assert!(trace.iter().any(|entry| entry.process != trace[0].process));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}

#[test]
fn a_trace_says_what_happened() {
    let disk = SimDisk::new(1);
    disk.record_trace(true);
    let file = create(&disk, "/d/../a");
    file.write_at(b"abc", 7).unwrap();
    file.read_at(&mut [0; 9], 7).unwrap();
    disk.rename(Path::new("a"), Path::new("b")).unwrap();
    disk.open(Path::new("a"), OpenMode::Read).unwrap_err();
    disk.crash_at_mutation(1);
    file.sync().unwrap_err();
    let trace = disk.trace();
    let outcomes: Vec<Outcome> = trace.iter().map(|entry| entry.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Done(0),
            Outcome::Done(3),
            Outcome::Done(3),
            Outcome::Done(0),
            Outcome::Failed(ErrorKind::NotFound),
            Outcome::Crashed
        ]
    );
    assert_eq!(trace[1].hash, trace[2].hash, "what was read is what was written");
    assert_eq!(trace[0].to_string(), "     1 p1000 create     a = 0");
    assert_eq!(trace[3].to_string(), "     4 p1000 rename     a -> b = 0");
    disk.record_trace(false);
    assert!(disk.trace().is_empty());
}

#[test]
fn a_fork_lives_its_own_life() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &[1; 5000]);
    file.write_at(&[2; 10], 0).unwrap();
    let LockAttempt::Acquired(_lock) = disk.lock(Path::new("LOCK")).unwrap() else { panic!("free") };
    let fork = disk.fork();
    assert_eq!((fork.digest(), fork.pending()), (disk.digest(), disk.pending()));
    assert!(matches!(fork.lock(Path::new("LOCK")).unwrap(), LockAttempt::Acquired(_)));
    let digest = disk.digest();
    fork.open(Path::new("a"), OpenMode::ReadWrite).unwrap().write_at(&[3; 10], 4090).unwrap();
    fork.remove(Path::new("a")).unwrap();
    drop(create(&fork, "b"));
    fork.power_loss(Loss::Everything);
    assert_eq!(disk.digest(), digest);
    assert_ne!(fork.digest(), digest);
    let twin = disk.fork();
    file.write_at(&[4], 4999).unwrap();
    assert_eq!(twin.digest(), digest);
    assert_ne!(disk.digest(), digest);
    file.sync().unwrap();
    assert_eq!(twin.random(), disk.random());
    // A clone is the same disk.
    let clone = disk.clone();
    drop(create(&clone, "c"));
    assert!(disk.exists(Path::new("c")).unwrap());
}

#[test]
fn a_lock_is_held_once_and_dies_with_its_guard_or_its_process() {
    let disk = SimDisk::new(1);
    let path = Path::new("LOCK");
    let LockAttempt::Acquired(guard) = disk.lock(path).unwrap() else { panic!("nobody held it") };
    let pid = disk.process_id();
    assert_eq!(disk.read_file("LOCK").unwrap(), pid.to_string().into_bytes());
    assert!(matches!(disk.lock(path).unwrap(), LockAttempt::Held { pid: Some(holder) } if holder == pid));
    drop(guard);
    let LockAttempt::Acquired(old) = disk.lock(path).unwrap() else { panic!("released by its guard") };
    disk.process_crash();
    let LockAttempt::Acquired(_new) = disk.lock(path).unwrap() else { panic!("released by the crash") };
    assert_eq!(disk.read_file("LOCK").unwrap(), disk.process_id().to_string().into_bytes());
    drop(old);
    assert!(matches!(disk.lock(path).unwrap(), LockAttempt::Held { .. }), "a dead guard releases nothing");
}

#[test]
fn names_and_modes_are_checked_as_by_an_os() {
    let disk = SimDisk::new(1);
    let kind = |outcome: io::Result<()>| outcome.unwrap_err().kind();
    let open = |path: &str, mode| disk.open(Path::new(path), mode).map(drop);
    disk.create_dir(Path::new("d")).unwrap();
    drop(create(&disk, "a"));
    assert_eq!(kind(open("none", OpenMode::ReadWrite)), ErrorKind::NotFound);
    assert_eq!(kind(open("none/a", OpenMode::CreateNew)), ErrorKind::NotFound);
    assert_eq!(kind(open("a", OpenMode::CreateNew)), ErrorKind::AlreadyExists);
    assert_eq!(kind(open("a/b", OpenMode::CreateNew)), ErrorKind::NotADirectory);
    assert_eq!(kind(open("d", OpenMode::Read)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.create_dir(Path::new("d"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create_dir(Path::new("/"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.remove(Path::new("none"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(Path::new("a"), Path::new("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.sync_dir(Path::new("e"))), ErrorKind::NotFound);
    let reader = disk.open(Path::new("a"), OpenMode::Read).unwrap();
    assert_eq!(reader.write_at(b"x", 0).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(reader.read_at(&mut [0], 5).unwrap(), 0);
    rename(&disk, "a", "a");
    let names: Vec<(String, bool)> = disk
        .list(Path::new("/"))
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.is_directory))
        .collect();
    assert_eq!(names, [("a".to_owned(), false), ("d".to_owned(), true)]);
}

#[test]
fn surroundings_are_seeded() {
    let (one, same, other) = (SimDisk::new(1), SimDisk::new(1), SimDisk::new(2));
    let draw = |disk: &SimDisk| -> Vec<u64> { (0..5).map(|_| disk.random()).collect() };
    let drawn = draw(&one);
    // Faults draw from elsewhere.
    same.inject(Fault::ShortWrites);
    create(&same, "a").write_at(&[0; 10], 0).unwrap();
    assert_eq!(drawn, draw(&same));
    assert_ne!(drawn, draw(&other));
    assert_eq!(one.now_millis() + 10, one.now_millis());
    assert_eq!(one.background(), Background::Inline);
    assert_eq!(other.with_background(Background::Threads).background(), Background::Threads);
}

#[test]
fn damage_at_rest_is_durable_and_no_step() {
    let disk = SimDisk::new(1);
    disk.write_file("/d/e/a", b"abcdef").unwrap();
    disk.write_file("d/e/b", b"xyz").unwrap();
    disk.flip_bit("d/e/a", 0, 1).unwrap();
    disk.zero("d/e/a", 4..100).unwrap();
    disk.swap_files("d/e/a", "d/e/b").unwrap();
    disk.copy_file("d/e/b", "d/c").unwrap();
    disk.truncate("d/c", 2).unwrap();
    disk.overwrite("d/c", 2, b"!").unwrap();
    disk.power_loss(Loss::Nothing);
    assert_eq!(disk.read_file("d/e/a").unwrap(), b"xyz");
    assert_eq!(disk.read_file("d/e/b").unwrap(), b"cbcd\0\0");
    assert_eq!(disk.read_file("d/c").unwrap(), b"cb!");
    assert_eq!(disk.file_names("d"), ["c", "e"]);
    disk.remove_file("d/e/a").unwrap();
    disk.write_file("d/c", b"").unwrap();
    disk.power_loss(Loss::Nothing);
    assert_eq!((disk.read_file("d/e/a"), disk.read_file("d/c")), (None, Some(vec![])));
    assert_eq!(disk.flip_bit("d/c", 0, 0).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.truncate("none", 0).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.steps(), 0);
}

#[test]
fn digests_tell_states_apart_and_see_only_what_is_visible() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &[0; 4096]);
    let fork = disk.fork();
    file.sync().unwrap();
    assert_eq!(fork.digest(), disk.digest());
    let hole = SimDisk::new(9);
    create(&hole, "a").set_length(4096).unwrap();
    assert_eq!(hole.digest(), disk.digest(), "a hole and zeros look the same");
    file.set_length(4097).unwrap();
    assert_ne!(fork.digest(), disk.digest());
    assert_eq!(fork.digest(), disk.durable_digest());
    rename(&fork, "a", "b");
    assert_ne!(fork.digest(), fork.durable_digest());
}

#[test]
fn capabilities_narrow_what_is_lost() {
    let mut capabilities = Capabilities::default();
    capabilities.file_sync_persists_entry = true;
    let disk = SimDisk::with_capabilities(1, capabilities);
    disk.create_dir(Path::new("d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    create(&disk, "d/a").sync().unwrap();
    assert_eq!(after(&disk, Loss::Nothing).file_names("d"), ["a"]);

    let mut capabilities = Capabilities::default();
    capabilities.directory_operations_in_order = true;
    let disk = SimDisk::with_capabilities(1, capabilities);
    for name in ["a", "b", "c", "d"] {
        drop(create(&disk, name));
    }
    let names = ["a", "b", "c", "d"];
    for seed in 0..100 {
        let found = after(&disk, Loss::Seeded(seed)).file_names("/");
        assert_eq!(found, names[..found.len()]);
    }
    assert_eq!(after(&disk, Loss::DropOne(1)).file_names("/"), ["a"]);

    let mut capabilities = Capabilities::default();
    capabilities.sector_bytes = 4096;
    let disk = SimDisk::with_capabilities(1, capabilities);
    durable(&disk, "a", &[1; 4096]).write_at(&[2; 4096], 0).unwrap();
    assert_eq!(found(&disk, "a").len(), 2);
}

#[test]
fn a_disk_can_be_shared_between_threads() {
    let disk = SimDisk::new(1);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let disk = &disk;
            scope.spawn(move || {
                let file = create(disk, &thread.to_string());
                for position in 0..50 {
                    file.write_at(&[1], position).unwrap();
                }
                file.sync().unwrap();
            });
        }
    });
    assert_eq!(disk.file_names("/").len(), 4);
    assert_eq!(disk.steps(), 4 * 52);
}
