//! What the child says to its parent: the lines in the pipe.
//!
//! The pipe survives the child, and a line is in it as a whole or not at all (it is written in one
//! piece, shorter than what a pipe writes at once). Each thing is said twice: that it begins, before
//! the call, and what came of it, after. What was begun, and of which nothing more is heard, has an
//! unknown outcome: it may have happened or not.

use std::fmt;
use std::str::FromStr;

use crate::phase::Phase;
use crate::record::Name;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// This thread is about to be in this phase.
    In {
        thread: u32,
        phase: Phase,
    },
    /// The call returned.
    Out {
        thread: u32,
        phase: Phase,
    },
    /// An opening served these offsets; it had copied so many records.
    Open {
        front: u64,
        end: u64,
        copied: u64,
    },
    /// This thread began to append its records below this number.
    Try {
        life: u32,
        thread: u32,
        below: u32,
    },
    /// This record was acknowledged at this offset.
    Acknowledged {
        offset: u64,
        name: Name,
    },
    Front {
        offset: u64,
        step: Step,
    },
    Back {
        end: u64,
        step: Step,
    },
    Meta {
        key: String,
        value: String,
        step: Step,
    },
    /// The disk is full: the log took no record of this thread.
    NoSpace {
        thread: u32,
    },
    /// Something failed that must not. The child ends.
    Failed(String),
}

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Tried,
    Done,
    /// It was refused, for want of space: nothing happened.
    Refused,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Tried => "tried",
            Step::Done => "done",
            Step::Refused => "refused",
        })
    }
}

impl FromStr for Step {
    type Err = ();

    fn from_str(text: &str) -> Result<Step, ()> {
        [Step::Tried, Step::Done, Step::Refused].into_iter().find(|step| step.to_string() == text).ok_or(())
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::In { thread, phase } => write!(f, "in {thread} {phase}"),
            Said::Out { thread, phase } => write!(f, "out {thread} {phase}"),
            Said::Open { front, end, copied } => write!(f, "open {front} {end} {copied}"),
            Said::Try { life, thread, below } => write!(f, "try {life} {thread} {below}"),
            Said::Acknowledged { offset, name } => write!(f, "ack {offset} {name}"),
            Said::Front { offset, step } => write!(f, "front {offset} {step}"),
            Said::Back { end, step } => write!(f, "back {end} {step}"),
            Said::Meta { key, value, step } => write!(f, "meta {key} {value} {step}"),
            Said::NoSpace { thread } => write!(f, "no-space {thread}"),
            Said::Failed(what) => write!(f, "failed {}", what.replace('\n', " ")),
        }
    }
}

impl FromStr for Said {
    type Err = String;

    fn from_str(line: &str) -> Result<Said, String> {
        let not_understood = || format!("the child said {line:?}");
        if let Some(what) = line.strip_prefix("failed ") {
            return Ok(Said::Failed(what.to_string()));
        }
        let words: Vec<&str> = line.split(' ').collect();
        fn word<T: FromStr>(words: &[&str], index: usize) -> Option<T> {
            words.get(index)?.parse().ok()
        }
        let said = || {
            Some(match words[0] {
                "in" => Said::In { thread: word(&words, 1)?, phase: word(&words, 2)? },
                "out" => Said::Out { thread: word(&words, 1)?, phase: word(&words, 2)? },
                "open" => {
                    Said::Open { front: word(&words, 1)?, end: word(&words, 2)?, copied: word(&words, 3)? }
                }
                "try" => {
                    Said::Try { life: word(&words, 1)?, thread: word(&words, 2)?, below: word(&words, 3)? }
                }
                "ack" => Said::Acknowledged { offset: word(&words, 1)?, name: word(&words, 2)? },
                "front" => Said::Front { offset: word(&words, 1)?, step: word(&words, 2)? },
                "back" => Said::Back { end: word(&words, 1)?, step: word(&words, 2)? },
                "meta" => {
                    Said::Meta { key: word(&words, 1)?, value: word(&words, 2)?, step: word(&words, 3)? }
                }
                "no-space" => Said::NoSpace { thread: word(&words, 1)? },
                _ => return None,
            })
        };
        said().ok_or_else(not_understood)
    }
}
