//! Who holds the log: a second process is told, and the lock dies with its holder.

use stonelog::{Error, Log};

use crate::child::{self, Work};
use crate::parent::Running;
use crate::said::Said;
use crate::scratch::Scratch;

#[test]
fn a_second_process_is_told_who_holds_the_log() {
    let scratch = Scratch::new(0, "a_second_process");
    let start = || Running::start(child::command(&scratch.log(), 0, 0, Work::Hold));
    let mut holder = start();
    while !matches!(holder.next().unwrap(), Some((_, Said::Open { .. })) | None) {}
    match Log::open(scratch.log()) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(holder.child.id())),
        other => panic!("expected Locked, got {other:?}"),
    }
    // Reading beside it is fine.
    assert_eq!(Log::open_read_only(scratch.log()).unwrap().offsets(), 0..0);
    holder.kill().unwrap();
    // The lock dies with its holder, whatever the LOCK file still says.
    let log = Log::open(scratch.log()).unwrap();

    // And the other way round.
    let second = start();
    let said: Vec<Said> = std::iter::from_fn(|| second.next().unwrap().map(|(_, said)| said)).collect();
    let ours = format!("process {}", std::process::id());
    assert!(said.iter().any(|said| matches!(said, Said::Failed(what) if what.contains(&ours))), "{said:?}");
    log.close().unwrap();
}
