//! What a test needs of the machine: a filesystem of its own, or a clear word why there is none.
//!
//! A test that wants one runs twice: outside, where it finds out whether the machine allows it, and
//! again as another process in a mount namespace of its own, where the filesystem is mounted. What is
//! mounted there is seen by nobody else, and goes when the last process of the namespace does: whatever
//! happens, nothing stays mounted. It knows nothing of logs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::rounds::tell;

const DIRECTORY: &str = "STONELOG_KILL_PLACE";
const KIND: &str = "STONELOG_KILL_PLACE_KIND";
const KEEP: &str = "STONELOG_KILL_KEEP";

/// A filesystem that can be made for a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// 2 MiB.
    Tmpfs,
    /// On a file, through a loop device: 16 MiB.
    Ext4,
}

/// Where the inner process works.
pub struct Place {
    pub directory: PathBuf,
    /// Outside: what is to be kept goes there.
    pub keep: PathBuf,
    pub kind: String,
}

/// The place that the outer process made, in the inner one.
pub fn place() -> Option<Place> {
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    Some(Place { directory: path(DIRECTORY)?, keep: path(KEEP)?, kind: std::env::var(KIND).ok()? })
}

/// Runs a program, and gives its complaint where it fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("no {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(format!("{program} {} failed: {complaint}", arguments.join(" ")))
}

/// The file behind the ext4 filesystem.
pub fn image(keep: &Path) -> PathBuf {
    keep.join("ext4.image")
}

/// Makes the filesystem and runs the ignored test `inner` in it. Skips, with a clear word, where
/// this machine does not let it.
///
/// # Panics
/// If the inner test fails. Then what it left is kept.
pub fn run_in(filesystem: Filesystem, inner: &str, hint: &str) {
    let kept = tempfile::Builder::new().prefix("stonelog-kill-").tempdir().unwrap();
    let directory = kept.path().join("mounted");
    std::fs::create_dir(&directory).unwrap();
    let mount = match prepare(filesystem, kept.path(), &directory) {
        Ok(mount) => mount,
        Err(why) => return tell(&format!("SKIPPED {inner} on {filesystem:?}: {why} ({hint})")),
    };
    let exe = std::env::current_exe().unwrap();
    let mut command = in_namespace(&mount);
    command.arg(exe).args([inner, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(DIRECTORY, &directory).env(KEEP, kept.path()).env(KIND, format!("{filesystem:?}"));
    // What it has to say goes to standard error.
    let status = command.stdout(Stdio::null()).status().unwrap();
    if !status.success() {
        panic!("{inner} on {filesystem:?} failed ({status}), see above; kept: {}", kept.keep().display());
    }
}

/// The command that mounts the filesystem, after it was tried once.
fn prepare(filesystem: Filesystem, kept: &Path, directory: &Path) -> Result<String, String> {
    let directory = directory.to_str().ok_or("the temporary directory has a strange name")?;
    let mount = match filesystem {
        Filesystem::Tmpfs => format!("mount -t tmpfs -o size=2m tmpfs {directory}"),
        Filesystem::Ext4 => {
            let image = image(kept);
            let image = image.to_str().ok_or("the temporary directory has a strange name")?;
            std::fs::File::create(image).and_then(|file| file.set_len(16 << 20)).unwrap();
            run("mkfs.ext4", &["-q", "-b", "1024", "-m", "0", image])?;
            format!("mount -o loop {image} {directory}")
        }
    };
    let tried = in_namespace(&mount).arg("true").output();
    let tried = tried.map_err(|error| format!("no unshare: {error}"))?;
    if tried.status.success() {
        return Ok(mount);
    }
    let complaint = String::from_utf8_lossy(&tried.stderr).trim().replace('\n', "; ");
    Err(format!("a private mount namespace, or mounting in it, is not allowed here: {complaint}"))
}

/// Runs what follows in a mount namespace in which this was done. Who is not root is so in there:
/// that is enough for a tmpfs.
fn in_namespace(mount: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if run("test", &["-w", "/proc/1/oom_score_adj"]).is_err() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-ec", &format!("{mount}; exec \"$@\""), "sh"]);
    command
}
