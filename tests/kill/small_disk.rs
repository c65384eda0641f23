//! A small filesystem that tests fill up, and `OsDisk` on it: a full disk is named, and given back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use stonelog::disk::{Disk, DiskFile, LockAttempt, OpenMode, OsDisk, read_exact_at, write_all_at};

/// A file that takes up what the log is not to have.
pub struct Filler {
    path: PathBuf,
}

impl Filler {
    /// Leaves about so many bytes free.
    pub fn leaving(place: &Path, free: u64) -> Filler {
        let filler = Filler { path: place.join("filler") };
        let file = File::create(&filler.path).unwrap();
        let mut position = 0;
        while fs2::available_space(place).unwrap() > free {
            if file.write_all_at(&[1; 4096], position).is_err() {
                break;
            }
            position += 4096;
        }
        // Without a sync a filesystem may still change its mind about what is free.
        file.sync_all().unwrap();
        filler
    }

    /// Takes the last byte, as another program would.
    pub fn take_all(&self) {
        let file = File::options().write(true).open(&self.path).unwrap();
        let mut position = file.metadata().unwrap().len();
        for piece in [4096, 512, 1] {
            while let Ok(count) = file.write_at(&vec![1; piece], position) {
                position += count as u64;
            }
        }
        let _ = file.sync_all();
    }

    pub fn give_back(self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn contents(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    read_exact_at(file, &mut bytes, 0).unwrap();
    bytes
}

/// What the trait `Disk` says of a full disk.
pub fn os_disk_names_a_full_disk(place: &Path) {
    let dir = tempfile::tempdir_in(place).unwrap();
    let open = |name: &str| OsDisk.open(&dir.path().join(name), OpenMode::CreateNew).unwrap();
    let file = open("file");
    write_all_at(&*file, &[7; 5000], 0).unwrap();
    // Leaves an errno behind that the reservation must not report.
    assert!(OsDisk.open(&dir.path().join("nowhere"), OpenMode::Read).is_err());

    let error = file.reserve(1 << 30).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert_eq!(contents(&*file), [7; 5000]);
    file.reserve(200_000).unwrap();
    assert_eq!(file.length().unwrap(), 200_000);

    // A file with a hole, longer than the disk: nothing to extend, and still not to be had.
    let sparse = open("sparse");
    sparse.set_length(1 << 30).unwrap();
    assert_eq!(sparse.reserve(1 << 29).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(sparse.length().unwrap(), 1 << 30);
    // What was found for its holes stays with it (ext4), until it is gone.
    drop(sparse);
    OsDisk.remove(&dir.path().join("sparse")).unwrap();

    // The lock is to be had on a disk that has nothing left.
    let lock = dir.path().join("LOCK");
    std::fs::write(&lock, "1234567\n").unwrap();
    let filler = Filler::leaving(dir.path(), 0);
    filler.take_all();
    let LockAttempt::Acquired(_guard) = OsDisk.lock(&lock).unwrap() else { panic!("free") };
    assert!(
        matches!(OsDisk.lock(&lock).unwrap(), LockAttempt::Held { pid: Some(pid) } if pid == std::process::id())
    );
}
