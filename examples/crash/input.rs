//! The lines to append.

use std::path::{Path, PathBuf};

use crate::Outcome;

/// Lines, without their line feeds, and where they are from.
pub(crate) struct Input {
    pub(crate) lines: Vec<Vec<u8>>,
    pub(crate) origin: String,
}

impl Input {
    /// A file's lines.
    pub(crate) fn of_file(file: &Path) -> Outcome<Input> {
        let bytes =
            std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let lines = split(&bytes);
        if lines.is_empty() {
            return Err(format!("{} has no lines to append", file.display()).into());
        }
        Ok(Input { lines, origin: file.display().to_string() })
    }

    /// The lines of this repository's own README, sources and docs.
    pub(crate) fn of_repository() -> Outcome<Input> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = vec![root.join("README.md")];
        collect(&root.join("src"), "rs", true, &mut files)?;
        collect(&root.join("docs"), "md", false, &mut files)?;
        let mut lines = Vec::new();
        for file in &files {
            let bytes =
                std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            lines.extend(split(&bytes));
        }
        Ok(Input { lines, origin: format!("{} files: README.md, src/, docs/", files.len()) })
    }

    pub(crate) fn line(&self, number: usize) -> Option<&[u8]> {
        self.lines.get(number).map(Vec::as_slice)
    }
}

/// The lines of a text, without their line feeds.
pub(crate) fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() { Vec::new() } else { text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() }
}

/// Files in `directory` with an extension, in the order of their names.
fn collect(directory: &Path, extension: &str, deep: bool, files: &mut Vec<PathBuf>) -> Outcome<()> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        if path.is_dir() && deep {
            collect(&path, extension, deep, files)?;
        } else if path.is_file() && path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    Ok(())
}
