//! What the operating system says: the machine, a directory's space, a process's memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

/// What the numbers were measured on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub file_system: String,
}

impl Machine {
    /// This machine, and the file system of this directory.
    pub fn of(directory: &Path) -> Result<Machine> {
        let name = rustix::system::uname();
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_string())
        };
        let processor = field(&read("/proc/cpuinfo")?, "model name").unwrap_or_else(|| "unknown".to_string());
        Ok(Machine {
            processor,
            cores: std::thread::available_parallelism()?.get(),
            memory_bytes: kibibytes(&read("/proc/meminfo")?, "MemTotal")?,
            kernel: format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
            file_system: file_system(directory)?,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gib = self.memory_bytes as f64 / (1_u64 << 30) as f64;
        let Machine { processor, cores, kernel, file_system, .. } = self;
        write!(f, "{cores} cores ({processor}), {gib:.0} GiB of memory, {kernel}, {file_system}")
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).context(path.to_string())
}

/// The type of the file system that holds this directory: that of the longest mount point above it.
fn file_system(directory: &Path) -> Result<String> {
    let directory = directory.canonicalize()?;
    let mounts = read("/proc/self/mounts")?;
    let above = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        directory.starts_with(point).then_some((point.len(), kind))
    });
    Ok(above.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_string())
}

/// Space that a directory's files take.
#[derive(Clone, Copy, Default, Debug)]
pub struct Space {
    /// The sum of their lengths.
    pub length: u64,
    /// What is allocated for them: `st_blocks`.
    pub allocated: u64,
}

/// The space of all files below this directory.
pub fn space(directory: &Path) -> Result<Space> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = Space::default();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        if facts.is_dir() {
            let below = space(&entry.path())?;
            sum.length += below.length;
            sum.allocated += below.allocated;
        } else {
            sum.length += facts.len();
            sum.allocated += facts.blocks() * 512;
        }
    }
    Ok(sum)
}

/// Looks at this process's anonymous memory, every millisecond, until asked for the peak.
pub struct MemoryWatch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl MemoryWatch {
    pub fn start() -> Result<MemoryWatch> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let thread = std::thread::Builder::new().name("memory".to_string()).spawn(move || {
            let mut peak = 0;
            loop {
                // The last look comes after the end, so that what is held then counts in any case.
                let last = seen.load(Ordering::Acquire);
                peak = peak.max(status("RssAnon").unwrap_or(0));
                if last {
                    return peak;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        })?;
        Ok(MemoryWatch { over, thread })
    }

    /// The peak of anonymous memory (RssAnon), and of all that was resident (VmHWM), mapped files included.
    pub fn peaks(self) -> Result<(u64, u64)> {
        self.over.store(true, Ordering::Release);
        let anonymous =
            self.thread.join().map_err(|_| anyhow!("the thread that looks at the memory panicked"))?;
        Ok((anonymous, status("VmHWM")?))
    }
}

fn status(key: &str) -> Result<u64> {
    kibibytes(&read("/proc/self/status")?, key)
}

/// A number of a `/proc` file that is given in "kB", in bytes.
fn kibibytes(text: &str, key: &str) -> Result<u64> {
    let line = text.lines().find(|line| line.starts_with(key)).with_context(|| format!("no {key}"))?;
    let number = line.split_whitespace().nth(1).with_context(|| format!("no number in {line}"))?;
    Ok(number.parse::<u64>()? << 10)
}
