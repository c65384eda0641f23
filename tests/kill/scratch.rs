//! Where a test's log lies: a directory that stays when the test fails, with what replays it.

use std::path::{Path, PathBuf};

/// A directory of a test's own.
pub struct Scratch {
    directory: Option<tempfile::TempDir>,
    /// Where evidence goes when the directory is on a filesystem that does not outlive the test.
    keep: Option<PathBuf>,
    seed: u64,
    replay: &'static str,
}

impl Scratch {
    /// In the usual place for temporary files.
    pub fn new(seed: u64, replay: &'static str) -> Scratch {
        let directory = tempfile::Builder::new().prefix("stonelog-kill-").tempdir().unwrap();
        Scratch { directory: Some(directory), keep: None, seed, replay }
    }

    /// On some other filesystem, from which it is copied to `keep` where the test fails.
    pub fn on(place: &Path, keep: Option<PathBuf>, seed: u64, replay: &'static str) -> Scratch {
        let directory = tempfile::Builder::new().prefix("stonelog-kill-").tempdir_in(place).unwrap();
        Scratch { directory: Some(directory), keep, seed, replay }
    }

    pub fn path(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    pub fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Keeps the files as the kill left them, as opening changes them.
    pub fn copy_evidence(&self) {
        let (from, to) = (self.log(), self.keep.as_deref().unwrap_or(self.path()).join("log-as-killed"));
        let _ = std::fs::remove_dir_all(&to);
        copy_all(&from, &to);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            let kept = match &self.keep {
                Some(keep) => {
                    copy_all(&directory.path().join("log"), &keep.join("log"));
                    keep.clone()
                }
                None => directory.keep(),
            };
            eprintln!("kept: {} (log-as-killed: before the last opening)", kept.display());
            eprintln!("replay: STONELOG_KILL_SEED={} cargo test --test kill {}", self.seed, self.replay);
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    // Killed before it made the directory: nothing to copy.
    let Ok(entries) = std::fs::read_dir(from) else { return };
    std::fs::create_dir_all(to).unwrap();
    for entry in entries.map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
