//! Whether a program has the log open for writing, found out without touching its lock.
//!
//! It owns reading the kernel's list of file locks. It takes no lock, not even for a moment: a
//! program that opens the log in that moment would be turned away by the very tool that promises
//! not to be in the way. So the answer is only as good as that list: where there is none (not
//! Linux), or the holder is in another container, nobody is seen; `check` also looks whether the
//! log moves while it is read.

use std::path::Path;

use stonelog::disk::{self, Disk, OpenMode};
use stonelog::names;

/// Far more than the list is on any machine that works.
const MOST_BYTES: usize = 4 << 20;

/// A program that has the log open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its process id, where the system shows it.
    pub(crate) pid: Option<u32>,
}

/// Who holds the log in `directory`, where that can be seen.
pub(crate) fn holder(disk: &dyn Disk, directory: &Path) -> Option<Holder> {
    let path = directory.join(names::LOCK);
    let said = read(disk, &path, 16)?;
    let said = said.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
    let said = said.and_then(|line| line.trim().parse::<u32>().ok());
    let locks = read(disk, Path::new("/proc/locks"), MOST_BYTES)?;
    find(&String::from_utf8_lossy(&locks), inode(&path), said)
}

/// The lock's holder in the kernel's list: the entry of this inode, by the process that `said` so in
/// the file. Both, since devices are numbered differently here and in stat (btrfs, overlays) so that
/// the inode alone could be another filesystem's, and a process may hold other logs' locks.
fn find(locks: &str, inode: Option<u64>, said: Option<u32>) -> Option<Holder> {
    // 1: FLOCK  ADVISORY  WRITE 16225 fe:00:10010655 0 EOF
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (class, _, access) = (fields.next()?, fields.next()?, fields.next()?);
        let (pid, file) = (fields.next()?.parse::<u32>().ok(), fields.next()?);
        let locked = file.rsplit(':').next().and_then(|text| text.parse::<u64>().ok());
        // Over NFS a lock of the whole file shows as POSIX.
        let exclusive = matches!(class, "FLOCK" | "POSIX" | "OFDLCK") && access == "WRITE";
        let same_file = locked.is_some() && locked == inode;
        let pid = pid.filter(|pid| *pid != 0);
        let same_process = said.is_none() || pid.is_none() || said == pid;
        (exclusive && same_file && same_process).then(|| Holder { pid: pid.or(said) })
    })
}

fn read(disk: &dyn Disk, path: &Path, most: usize) -> Option<Vec<u8>> {
    let file = disk::retry_interrupted(|| disk.open(path, OpenMode::Read)).ok()?;
    let mut bytes = vec![0; most];
    let got = disk::read_up_to(file.as_ref(), &mut bytes, 0).ok()?;
    bytes.truncate(got);
    Some(bytes)
}

#[cfg(unix)]
fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    // The one question that the library's disk has no answer to; asking it opens nothing.
    path.metadata().ok().map(|metadata| metadata.ino())
}

#[cfg(not(unix))]
fn inode(_path: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_its_file_and_its_word() {
        let locks = "1: FLOCK  ADVISORY  WRITE 16225 fe:00:10010655 0 EOF\n\
                     2: POSIX  ADVISORY  READ 7 fe:00:11 0 EOF\n\
                     3: -> FLOCK ADVISORY WRITE 9 fe:00:12 0 EOF\n";
        assert_eq!(find(locks, Some(10010655), None), Some(Holder { pid: Some(16225) }));
        assert_eq!(find(locks, Some(10010655), Some(16225)), Some(Holder { pid: Some(16225) }));
        assert_eq!(find(locks, Some(10010655), Some(3)), None, "the same number on another filesystem");
        assert_eq!(find(locks, Some(99), Some(16225)), None, "a process may hold other locks");
        assert_eq!(find(locks, Some(11), Some(7)), None, "a shared lock is no writer's");
        assert_eq!(find(locks, Some(12), None), None, "a process that waits for a lock holds none");
        assert_eq!(find("nonsense\n\n", Some(1), Some(1)), None);
    }
}
