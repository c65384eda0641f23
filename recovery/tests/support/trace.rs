//! A process followed from system call to system call, and killed before the one that is chosen.
//!
//! It owns the list of calls that change something, on a disk or for others ([`changes`]), and how a
//! process and all its threads are followed (ptrace). It knows nothing of logs. Where tracing is not
//! allowed, [`Unable`] says why.
//!
//! Why ptrace, and not kills at random moments: each step is struck exactly once, also those that take a
//! microsecond. Why the detour over a shell that stops itself: a process that asks to be traced would
//! have to do so between fork and exec, which takes `unsafe`.

#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "each test needs a part of it, and registers hold whatever a call takes"
)]

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Why this machine does not let a process be followed.
#[derive(Debug)]
pub struct Unable(pub String);

/// How a followed process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// Before this call, which was not done.
    Killed(String),
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    pub end: End,
    /// Every call that changes something, in order; the last was not done where it was killed there.
    pub changes: Vec<String>,
}

/// What to do to the process.
#[derive(Debug, Clone, Copy)]
pub enum Blow {
    None,
    /// SIGKILL at the entry of the nth call that changes something, from 1.
    KillAt(usize),
    /// This signal there, and on.
    SignalAt(usize, Signal),
}

/// Follows `program` with `arguments`, its output going nowhere.
pub fn follow(program: &Path, arguments: &[String], blow: Blow) -> Result<Followed, Unable> {
    let unable = |what: &str, errno: Errno| Unable(format!("{what}: {errno}"));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"kill -STOP $$; exec "$@""#, "sh"]).arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|error| Unable(format!("no /bin/sh: {error}")))?;
    let pid = Pid::from_raw(child.id() as i32);
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).map_err(|errno| unable("waiting", errno))?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    if let Err(errno) = ptrace::seize(pid, options) {
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
        return Err(unable("following a process is not allowed here (ptrace)", errno));
    }
    kill(pid, Signal::SIGCONT).map_err(|errno| unable("going on", errno))?;
    Ok(Follower { pid, blow, inside: HashMap::new(), running: false, changes: Vec::new() }.run())
}

/// Says something that the test harness does not swallow.
pub fn tell(words: &str) {
    let _ = std::io::stderr().write_all(format!("{words}\n").as_bytes());
}

struct Follower {
    pid: Pid,
    blow: Blow,
    /// Threads that are inside of a call.
    inside: HashMap<Pid, bool>,
    /// Whether the program runs, and no longer the shell before it.
    running: bool,
    changes: Vec<String>,
}

impl Follower {
    fn run(mut self) -> Followed {
        let mut killed = None;
        loop {
            // Only what this thread started, its threads among it: other tests follow others.
            let status =
                match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                    Ok(status) => status,
                    Err(Errno::EINTR) => continue,
                    Err(errno) => panic!("waiting for {}: {errno}", self.pid),
                };
            let mut pass: Option<Signal> = None;
            let thread = match status {
                WaitStatus::Exited(pid, code) if pid == self.pid => {
                    return Followed { end: End::Exited(code), changes: self.changes };
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.pid => {
                    let Some(call) = killed else { panic!("ended by {signal}") };
                    return Followed { end: End::Killed(call), changes: self.changes };
                }
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) | WaitStatus::StillAlive => continue,
                WaitStatus::PtraceSyscall(thread) => {
                    let inside = self.inside.entry(thread).or_default();
                    *inside = !*inside;
                    if *inside
                        && self.running
                        && let Some(call) = change(thread)
                    {
                        self.changes.push(call.clone());
                        match self.blow {
                            Blow::KillAt(nth) if nth == self.changes.len() => {
                                kill(self.pid, Signal::SIGKILL).unwrap();
                                killed = Some(call);
                                continue;
                            }
                            Blow::SignalAt(nth, signal) if nth == self.changes.len() => {
                                kill(self.pid, signal).unwrap();
                            }
                            _ => {}
                        }
                    }
                    thread
                }
                WaitStatus::PtraceEvent(thread, _, event) => {
                    if event == libc::PTRACE_EVENT_EXEC {
                        self.running = true;
                    }
                    thread
                }
                WaitStatus::Stopped(thread, signal) => {
                    pass = Some(signal);
                    thread
                }
                WaitStatus::Continued(thread) => thread,
            };
            // A thread may have gone meanwhile, with a process that ends.
            match ptrace::syscall(thread, pass) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => panic!("going on with {thread}: {errno}"),
            }
        }
    }
}

/// The call that `thread` is about to do, in words, if it changes something: a file, a name, a lock, or
/// what is durable. (What goes to the standard streams does not.)
fn change(thread: Pid) -> Option<String> {
    let registers = ptrace::getregs(thread).ok()?;
    let number = registers.orig_rax as i64;
    let file = registers.rdi as i32;
    let creates = |flags: u64| flags as i32 & (libc::O_CREAT | libc::O_TRUNC) != 0;
    let name = match number {
        libc::SYS_openat if creates(registers.rdx) => "openat(O_CREAT)",
        libc::SYS_open if creates(registers.rsi) => "open(O_CREAT)",
        libc::SYS_openat2 => "openat2",
        libc::SYS_creat => "creat",
        libc::SYS_write if file > 2 => "write",
        libc::SYS_writev if file > 2 => "writev",
        libc::SYS_pwrite64 => "pwrite64",
        libc::SYS_pwritev | libc::SYS_pwritev2 => "pwritev",
        libc::SYS_copy_file_range => "copy_file_range",
        libc::SYS_sendfile => "sendfile",
        libc::SYS_ftruncate => "ftruncate",
        libc::SYS_truncate => "truncate",
        libc::SYS_fallocate => "fallocate",
        libc::SYS_fsync => "fsync",
        libc::SYS_fdatasync => "fdatasync",
        libc::SYS_sync | libc::SYS_syncfs | libc::SYS_sync_file_range => "sync",
        libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => "rename",
        libc::SYS_mkdir | libc::SYS_mkdirat => "mkdir",
        libc::SYS_rmdir => "rmdir",
        libc::SYS_unlink | libc::SYS_unlinkat => "unlink",
        libc::SYS_link | libc::SYS_linkat | libc::SYS_symlink | libc::SYS_symlinkat => "link",
        libc::SYS_chmod | libc::SYS_fchmod | libc::SYS_fchmodat => "chmod",
        libc::SYS_chown | libc::SYS_fchown | libc::SYS_fchownat => "chown",
        libc::SYS_utimensat | libc::SYS_futimesat | libc::SYS_utime | libc::SYS_utimes => "utimes",
        libc::SYS_setxattr | libc::SYS_fsetxattr | libc::SYS_removexattr => "setxattr",
        libc::SYS_flock => "flock",
        libc::SYS_fcntl
            if matches!(registers.rsi as i32, libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK) =>
        {
            "fcntl(lock)"
        }
        libc::SYS_mmap if writes_through(&registers) => "mmap(shared, writable)",
        _ => return None,
    };
    Some(name.to_string())
}

fn writes_through(registers: &libc::user_regs_struct) -> bool {
    let (protection, flags, file) = (registers.rdx as i32, registers.r10 as i32, registers.r8 as i32);
    protection & libc::PROT_WRITE != 0 && flags & libc::MAP_SHARED != 0 && file >= 0
}
