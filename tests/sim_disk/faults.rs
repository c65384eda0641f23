//! Faults that a test arms, and a full disk.

use super::*;

#[test]
fn a_failed_fsync_loses_bytes_that_reads_still_show() {
    for error in [FaultError::Io, FaultError::StorageFull] {
        let disk = SimDisk::new(1);
        let file = durable(&disk, "a", b"one");
        file.write_at(&[b'x'; 512], 512).unwrap();
        disk.inject(Fault::Error { operation: Operation::Sync, nth: 1, error });
        assert!(file.sync().is_err());
        assert_eq!(disk.pending(), 0);
        assert_eq!(read(&*file).len(), 1024, "the cache still shows them");
        file.sync().unwrap();
        assert_eq!(after(&disk, Loss::Everything).read_file("a").unwrap(), b"one");
        // Later writes are written as ever, and the lost ones stay lost.
        file.write_at(b"two", 1024).unwrap();
        file.sync().unwrap();
        let bytes = after(&disk, Loss::Nothing).read_file("a").unwrap();
        assert_eq!(bytes, [b"one", &[0; 1021][..], b"two"].concat());
    }
}

#[test]
fn an_interrupted_fsync_loses_nothing() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"");
    file.write_at(b"x", 0).unwrap();
    disk.inject(Fault::interrupted(Operation::Sync, 1));
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Interrupted);
    file.sync().unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("a").unwrap(), b"x");
}

#[test]
fn faults_strike_the_nth_call_of_their_operation() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"abc");
    disk.inject(Fault::read_error(2));
    disk.inject(Fault::write_error(1));
    disk.inject(Fault::interrupted(Operation::Read, 1));
    disk.inject(Fault::sync_dir_error(1));
    let mut buffer = [0; 3];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(file.write_at(b"x", 0).is_err());
    assert!(file.read_at(&mut buffer, 0).is_err());
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(&buffer, b"abc");
    drop(create(&disk, "b"));
    assert!(disk.sync_dir(Path::new("/")).is_err());
    assert_eq!(after(&disk, Loss::Nothing).file_names("/"), ["a"]);
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(after(&disk, Loss::Nothing).file_names("/"), ["a", "b"]);
    disk.inject(Fault::storage_full(Operation::Create, 1));
    disk.clear_faults();
    drop(create(&disk, "c"));
}

#[test]
fn short_writes_write_a_part() {
    let disk = SimDisk::new(7);
    let file = durable(&disk, "a", b"");
    disk.inject(Fault::ShortWrite { nth: 2 });
    assert_eq!(file.write_at(&[1; 100], 0).unwrap(), 100);
    let count = file.write_at(&[2; 100], 100).unwrap();
    assert!((1..100).contains(&count));
    assert_eq!(file.length().unwrap(), 100 + count as u64);
    disk.inject(Fault::ShortWrites);
    let counts: Vec<usize> = (0..100).map(|_| file.write_at(&[3; 100], 0).unwrap()).collect();
    let short = counts.iter().filter(|count| **count < 100).count();
    assert!((20..80).contains(&short), "{short}");
    write_all_at(&*file, &[4; 1000], 0).unwrap();
    assert_eq!(read(&*file), [4; 1000]);
    assert_eq!(file.write_at(&[], 0).unwrap(), 0);
}

#[test]
fn a_full_disk_says_so_and_goes_on_when_there_is_space() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(3 * 4096));
    let file = durable(&disk, "a", &[1; 4096]);
    assert_eq!(disk.used_bytes(), 4096);
    assert_eq!(file.reserve(4 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.length().unwrap(), 4096, "a reservation that fails changes nothing");
    file.reserve(2 * 4096).unwrap();
    assert_eq!((file.length().unwrap(), disk.used_bytes()), (8192, 8192));
    file.set_length(1 << 40).unwrap();
    assert_eq!(disk.used_bytes(), 8192, "a hole takes no space");
    file.set_length(8192).unwrap();
    let other = create(&disk, "b");
    assert_eq!(other.write_at(&[2; 5000], 0).unwrap(), 4096, "what fits is written");
    assert_eq!(other.write_at(&[2; 904], 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[3; 4096], 4096).unwrap(), 4096, "reserved space is there");
    // A full disk still locks, removes and cuts.
    assert!(matches!(disk.lock(Path::new("LOCK")).unwrap(), LockAttempt::Acquired(_)));
    disk.remove(Path::new("b")).unwrap();
    assert_eq!(file.write_at(&[3; 1], 8192).unwrap_err().kind(), ErrorKind::StorageFull, "b is still open");
    drop(other);
    assert_eq!(file.write_at(&[3; 1], 8192).unwrap(), 1);
    file.set_length(1).unwrap();
    assert_eq!(disk.used_bytes(), 4096);
    assert_eq!(file.reserve(u64::MAX).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(b"xx", u64::MAX).unwrap_err().kind(), ErrorKind::FileTooLarge);
}

#[test]
fn reserved_space_reads_as_zeros_and_what_was_cut_never_comes_back_by_growing() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &[9; 600]);
    file.set_length(10).unwrap();
    file.reserve(5000).unwrap();
    let expected = [&[9; 10][..], &[0; 4990]].concat();
    assert_eq!(read(&*file), expected);
    file.sync().unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("a").unwrap(), expected);
    assert_eq!(after(&disk, Loss::Nothing).used_bytes(), 8192);
    assert!(file.map(100).unwrap().is_none());
}
