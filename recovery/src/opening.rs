//! What the next opening of a log would do, in words: the library's own plan, asked and not acted on.
//!
//! It owns the words. It decides nothing: `stonelog::recovery::plan` is what an opening itself goes
//! by, so what is foretold here is what happens.

use stonelog::recovery::{Findings, Planned, Recovery, plan};
use stonelog::{DamagePolicy, Error};

use crate::output::{self, records};

/// What opening the log for writing would do, by the library's own plan.
#[derive(Debug, Clone)]
pub(crate) enum Opening {
    /// It begins a new log.
    Begins,
    /// It opens; what it finds and does.
    Opens(Box<Recovery>),
    /// It refuses, unless asked to serve what is left; then it opens all the same.
    OnlyServing(Box<Recovery>),
    /// It refuses, unless asked to serve; then it serves reads only.
    ReadsOnly,
    /// It refuses in any case.
    Refuses(Box<stonelog::Damage>),
    /// Nobody can tell.
    Unknown,
}

impl Opening {
    /// Asks the library's plan, for findings as deep as an opening's.
    pub(crate) fn of(findings: &Findings) -> Opening {
        let default = plan(findings, DamagePolicy::Refuse);
        match (default, plan(findings, DamagePolicy::Serve)) {
            (Ok(Planned::Begin), _) => Opening::Begins,
            (Ok(Planned::Proceed(plan)), _) => Opening::Opens(Box::new(plan.recovery)),
            (_, Ok(Planned::Proceed(plan))) => Opening::OnlyServing(Box::new(plan.recovery)),
            (_, Ok(Planned::ReadsOnly(_))) => Opening::ReadsOnly,
            (_, Err(Error::Damaged(damage))) => Opening::Refuses(damage),
            _ => Opening::Unknown,
        }
    }

    /// What it does, where it opens at all.
    pub(crate) fn recovery(&self) -> Option<&Recovery> {
        match self {
            Opening::Opens(recovery) | Opening::OnlyServing(recovery) => Some(recovery),
            _ => None,
        }
    }

    /// One word for JSON.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Opening::Begins => "begins",
            Opening::Opens(_) => "opens",
            Opening::OnlyServing(_) => "serve-only",
            Opening::ReadsOnly => "serve-reads-only",
            Opening::Refuses(_) => "refuses",
            Opening::Unknown => "unknown",
        }
    }

    /// A sentence for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Opening::Begins => "the next opening begins a new log".to_string(),
            Opening::Opens(recovery) => {
                format!("the next opening goes on at offset {}{}", recovery.next_offset, deeds(recovery))
            }
            Opening::OnlyServing(_) => {
                "the next opening refuses, unless Options::on_damage(DamagePolicy::Serve) asks it to serve \
                 every other record"
                    .to_string()
            }
            Opening::ReadsOnly => {
                "the next opening refuses; with DamagePolicy::Serve it serves reads only, since \
                                   nobody can tell which offset comes next"
                    .to_string()
            }
            Opening::Refuses(_) => "the next opening refuses, under either DamagePolicy".to_string(),
            Opening::Unknown => "what the next opening does cannot be told".to_string(),
        }
    }
}

/// What a recovery will do besides going on, in words that follow the offset.
fn deeds(recovery: &Recovery) -> String {
    let mut words = String::new();
    if !recovery.copied.is_empty() {
        words += &format!(", {} copied into a fresh segment", records(&recovery.copied));
    }
    for cut in &recovery.cut {
        let bytes = output::bytes(cut.positions.end.saturating_sub(cut.positions.start));
        let kept = if cut.quarantined { "in quarantine/" } else { "beyond its seal" };
        words += &format!(", {bytes} of {} cut and kept {kept}", cut.file);
    }
    words
}
