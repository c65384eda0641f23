//! One change that is made in the cache and not yet durable.
//!
//! It owns what a change touches: which names, which file's bytes, which directory's sync. It does not know
//! how a change is applied (`medium`) or whether it survives (`loss`).
//!
//! Invariant: a change of names says outright what each of its names stands for afterwards, so that applying
//! it never depends on how the name stood before.

use std::sync::Arc;

use super::chance::Digest;

/// A directory and a name in it.
pub(super) type Name = (u64, Arc<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    File(u64),
    Directory(u64),
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    /// `image`: the sectors from `position` on, zeros beyond the file's end; `length`: the file's after
    /// the write, `before`: ahead of it.
    Write {
        file: u64,
        position: u64,
        image: Arc<[u8]>,
        length: u64,
        before: u64,
    },
    SetLength {
        file: u64,
        length: u64,
        before: u64,
    },
    Reserve {
        file: u64,
        length: u64,
        before: u64,
    },
    Create {
        parent: Name,
        entry: Entry,
    },
    Rename {
        file: u64,
        from: Name,
        to: Name,
    },
    Remove {
        file: u64,
        from: Name,
    },
}

impl Change {
    /// Whether it changes directories, not bytes.
    pub(super) const fn is_naming(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Rename { .. } | Self::Remove { .. })
    }

    /// The names it changes.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> + Clone {
        let (one, other) = match self {
            Self::Create { parent: name, .. } | Self::Remove { from: name, .. } => (Some(name), None),
            Self::Rename { from, to, .. } => (Some(from), Some(to)),
            Self::Write { .. } | Self::SetLength { .. } | Self::Reserve { .. } => (None, None),
        };
        one.into_iter().chain(other)
    }

    /// The directory that it moves a file into, from another one.
    pub(super) fn moves_into(&self) -> Option<u64> {
        match self {
            Self::Rename { from, to, .. } if from.0 != to.0 => Some(to.0),
            _ => None,
        }
    }

    /// The file whose bytes it changes.
    pub(super) const fn writes_to(&self) -> Option<u64> {
        match self {
            Self::Write { file, .. } | Self::SetLength { file, .. } | Self::Reserve { file, .. } => {
                Some(*file)
            }
            Self::Create { .. } | Self::Rename { .. } | Self::Remove { .. } => None,
        }
    }

    /// The file that it names or unnames.
    pub(super) const fn names_file(&self) -> Option<u64> {
        match self {
            Self::Create { entry: Entry::File(file), .. }
            | Self::Rename { file, .. }
            | Self::Remove { file, .. } => Some(*file),
            _ => None,
        }
    }

    /// The directory whose sync makes it durable.
    pub(super) fn home(&self) -> Option<u64> {
        match self {
            Self::Create { parent: name, .. }
            | Self::Remove { from: name, .. }
            | Self::Rename { to: name, .. } => Some(name.0),
            Self::Write { .. } | Self::SetLength { .. } | Self::Reserve { .. } => None,
        }
    }

    /// Takes in all that a later sync or loss of power makes of it.
    pub(super) fn digest(&self, digest: &mut Digest) {
        let mut name = |(directory, name): &Name| {
            digest.word(*directory);
            digest.bytes(name.as_bytes());
        };
        match self {
            Self::Create { parent, .. } => name(parent),
            Self::Rename { from, to, .. } => [from, to].into_iter().for_each(name),
            Self::Remove { from, .. } => name(from),
            Self::Write { .. } | Self::SetLength { .. } | Self::Reserve { .. } => {}
        }
        let (kind, subject, at) = match self {
            Self::Write { file, position, .. } => (1, *file, *position),
            Self::SetLength { file, length, .. } => (2, *file, *length),
            Self::Reserve { file, length, .. } => (3, *file, *length),
            Self::Create { entry: Entry::File(file), .. } => (4, *file, 0),
            Self::Create { entry: Entry::Directory(directory), .. } => (5, *directory, 0),
            Self::Rename { file, .. } => (6, *file, 0),
            Self::Remove { file, .. } => (7, *file, 0),
        };
        [kind, subject, at].into_iter().for_each(|word| digest.word(word));
        if let Self::Write { image, length, .. } = self {
            digest.word(*length);
            digest.bytes(image);
        }
    }
}
