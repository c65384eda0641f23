//! What Stonelog is for, in one run: a writer is killed, its log torn, reopened and checked.
//!
//! ```text
//! cargo run --release --example crash -- [--keep] [FILE]
//! ```
//!
//! A child process appends every line of FILE (by default this repository's README, sources and
//! docs) with several threads, and notes each acknowledged line on a pipe, outside the log. It is
//! killed mid-write with SIGKILL. Half a frame is left behind the end, as a power cut would leave
//! it. Then the log is opened again, and everything that was acknowledged must be there. At last one
//! bit is flipped in the middle, to see that damage is never returned as data, that `log-repair` finds it, gives up
//! that record and no other, and takes it all back.
//!
//! The exit code is 0 only if every check held.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an application beside the log: it reads its input, wounds the log's files behind its back, and times itself"
)]

mod input;
mod repair;
mod screen;
mod wound;
mod writer;

use std::collections::HashSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stonelog::{Durability, Log, Options};

use input::Input;
use screen::{Screen, count, counted};
use writer::Notes;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many threads append at once.
const THREADS: usize = 4;
/// Small, so that the few hundred kilobytes of the default input already fill several segments.
const SEGMENT_BYTES: u64 = 128 << 10;

const USAGE: &str = "usage: cargo run --release --example crash -- [--keep] [FILE]
Appends FILE line by line (default: this repository's README, sources and docs), kills the writer,
tears and damages the log, and checks what is left. --keep leaves the log directory in place.";

fn main() -> ExitCode {
    let told = std::env::args_os().skip(1).collect::<Vec<_>>();
    let outcome = match told.first().and_then(|first| first.to_str()) {
        Some(writer::CHILD_ARGUMENT) => writer::run(told.get(1).map(Path::new)).map(|()| true),
        _ => Arguments::parse(told).and_then(|arguments| match arguments {
            Some(arguments) => tell(&arguments),
            None => {
                println!("{USAGE}");
                Ok(true)
            }
        }),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    file: Option<PathBuf>,
    keep: bool,
}

impl Arguments {
    /// What was asked for; `None` for help.
    fn parse(told: Vec<std::ffi::OsString>) -> Outcome<Option<Arguments>> {
        let mut arguments = Arguments { file: None, keep: false };
        for argument in told {
            match argument.to_str() {
                Some("--help" | "-h") => return Ok(None),
                Some("--keep") => arguments.keep = true,
                Some(unknown) if unknown.starts_with('-') => {
                    return Err(format!("unknown option {unknown}\n{USAGE}").into());
                }
                _ if arguments.file.is_none() => arguments.file = Some(PathBuf::from(argument)),
                _ => return Err(format!("one FILE at most\n{USAGE}").into()),
            }
        }
        Ok(Some(arguments))
    }
}

/// How the log is opened, by the writer and by whoever comes after it.
fn options() -> Options {
    Options::new().durability(Durability::Always).segment_bytes(SEGMENT_BYTES)
}

/// The whole story. Whether every check held.
fn tell(arguments: &Arguments) -> Outcome<bool> {
    let input = match &arguments.file {
        Some(file) => Input::of_file(file)?,
        None => Input::of_repository()?,
    };
    let temporary = tempfile::Builder::new().prefix("stonelog-crash-").tempdir()?;
    let directory = temporary.path().join("log");
    let mut screen = Screen::new();
    let told = tell_in(&directory, &input, &mut screen);
    if arguments.keep {
        println!("kept: {}", temporary.keep().join("log").display());
    } else {
        temporary.close()?;
    }
    told?;
    Ok(screen.all_held())
}

fn tell_in(directory: &Path, input: &Input, screen: &mut Screen) -> Outcome<()> {
    screen.title("stonelog: kill the writer, tear its log, open it again, check every line");

    screen.step("write", &format!("{} from {}", counted(input.lines.len(), "line"), input.origin));
    screen.more(&format!("a child process, {THREADS} threads; append() returns when its line is on disk"));
    let notes = writer::run_and_kill(directory, input)?;

    screen.step("kill", &format!("SIGKILL, mid-write, after {:.1} s", notes.seconds));
    screen.more(&format!(
        "{} acknowledged, {} in flight; {}, {:.2} a line",
        counted(notes.acknowledged.len(), "line"),
        counted(notes.in_flight(), "append"),
        counted(notes.fsyncs, "fsync"),
        notes.fsyncs_per_line(),
    ));

    let tear = wound::leave_half_a_frame(directory, input)?;
    screen.step("tear", "half a frame left behind the end, as by a power cut");
    screen.more(&format!(
        "{} of {} bytes, at byte {} of {}",
        tear.left,
        tear.whole,
        count(tear.position),
        tear.file
    ));

    let log = options().open(directory)?;
    screen.step("reopen", "the recovery report:");
    for part in log.recovery().to_string().split("; ") {
        screen.more(&format!("| {part}"));
    }
    screen.check(tear.was_cut(log.recovery()), "the half frame is cut, reported, and kept aside");

    screen.step(
        "check",
        &format!(
            "{} in {}",
            counted(log.offsets().count(), "record"),
            counted(log.segments().len(), "segment")
        ),
    );
    check_all(&log, input, &notes, screen);

    let flip = wound::choose_flip(directory, &log, &notes)?;
    log.close()?;
    screen.step("flip", &format!("one bit, in the record at offset {}", flip.offset));
    screen.more(&format!("at byte {} of {}", count(flip.position), flip.file()));
    let (healthy, _) = repair::run("check", directory, &[])?;
    screen.check(healthy.succeeded(), &format!("log-repair check, before: {healthy}"));
    flip.carry_out(directory)?;
    let log = options().open(directory)?;
    check_around(&log, &flip, input, &notes, screen);
    log.close()?;

    let (found, said) = repair::run("check", directory, &[])?;
    screen.step("look", &format!("$ {}", repair::command_line("check", directory, &[])));
    for line in said.lines() {
        screen.more(&format!("| {line}"));
    }
    screen.check(found.found_damage(), &format!("it reports damage: {found}"));
    screen.check(repair::names(&said, flip.offset), &format!("it names the record: offset {}", flip.offset));

    repair_and_undo(directory, &flip, input, &notes, screen)?;

    flip.carry_out(directory)?;
    let log = options().open(directory)?;
    screen.step("mend", "the bit flipped back, everything read once more");
    let there = check_all(&log, input, &notes, screen);
    log.close()?;

    let all = notes.acknowledged.len();
    match (screen.all_held(), there == all) {
        (true, true) => {
            screen.end(&format!("All {} acknowledged lines are there, byte for byte.", count(all)))
        }
        (false, true) => screen.end("The acknowledged lines are there, but something above did not hold."),
        _ => {
            screen.end(&format!("{} of {} acknowledged lines are NOT there.", count(all - there), count(all)))
        }
    }
    Ok(())
}

/// Repairs the log, giving the damaged record up by its offset, and takes the repair back.
fn repair_and_undo(
    directory: &Path,
    flip: &wound::Flip,
    input: &Input,
    notes: &Notes,
    screen: &mut Screen,
) -> Outcome<()> {
    let lost = format!("{}..{}", flip.offset, flip.offset + 1);
    let more = ["--apply", "--accept-loss", &lost];
    let (unasked, _) = repair::run("repair", directory, &more[..1])?;
    let (done, said) = repair::run("repair", directory, &more)?;
    screen.step("repair", &format!("$ {}", repair::command_line("repair", directory, &more)));
    for line in said.lines() {
        screen.more(&format!("| {line}"));
    }
    screen
        .check(unasked.found_damage(), &format!("unless the record is named, it is not given up: {unasked}"));
    screen.check(done.corrected(), &format!("it is done: {done}"));
    let log = options().open_read_only(directory)?;
    let is_lost = matches!(log.read(flip.offset), Err(stonelog::Error::Lost { .. }));
    screen.check(is_lost, &format!("read({}) says so: it is lost, for good", flip.offset));
    let others = notes.acknowledged.iter().filter(|(offset, _)| **offset != flip.offset);
    let there = |(offset, line): (&u64, &usize)| {
        log.read(*offset).is_ok_and(|record| Some(&record[..]) == input.line(*line))
    };
    let all = notes.acknowledged.len() - 1;
    let served = others.filter(|other| there(*other)).count();
    screen.check(
        served == all,
        &format!("{} of {} other acknowledged lines, byte for byte", count(served), count(all)),
    );
    drop(log);
    let (undone, _) = repair::run("undo", directory, &["--apply"])?;
    screen.more(&format!("$ {}", repair::command_line("undo", directory, &["--apply"])));
    let (again, _) = repair::run("check", directory, &[])?;
    screen.check(
        undone.corrected() && again.found_damage(),
        &format!("taken back, and damaged as it was: {undone}, and check's {again}"),
    );
    Ok(())
}

/// Checks every acknowledged line at its offset, and that nothing else is in the log. How many
/// acknowledged lines are there.
fn check_all(log: &Log, input: &Input, notes: &Notes, screen: &mut Screen) -> usize {
    let mut there = 0;
    for (&offset, &line) in &notes.acknowledged {
        match log.read(offset) {
            Ok(record) if Some(&record[..]) == input.line(line) => there += 1,
            Ok(_) => {
                screen.check(false, &format!("offset {offset} holds something else than line {}", line + 1))
            }
            Err(error) => screen.check(false, &format!("offset {offset}: {error}")),
        }
    }
    let all = notes.acknowledged.len();
    screen.check(
        there == all,
        &format!("{} of {} acknowledged lines, byte for byte", count(there), count(all)),
    );

    let lines: HashSet<&[u8]> = input.lines.iter().map(Vec::as_slice).collect();
    let (mut next, mut strangers) = (0, 0);
    for record in log.records(..) {
        let expected = record.is_ok_and(|record| record.offset() == next && lines.contains(&record[..]));
        strangers += usize::from(!expected);
        next += 1;
    }
    let unasked = log.offsets().end.saturating_sub(all as u64);
    let held = strangers == 0 && log.offsets() == (0..next) && unasked <= notes.in_flight() as u64;
    screen.check(
        held,
        &format!("no gaps, no strangers; {unasked} of the {} in flight made it too", notes.in_flight()),
    );
    there
}

/// Checks that the damaged record is refused and its neighbours are served.
fn check_around(log: &Log, flip: &wound::Flip, input: &Input, notes: &Notes, screen: &mut Screen) {
    let offset = flip.offset;
    match log.read(offset) {
        Err(stonelog::Error::Damaged(damage)) => {
            let named = damage.offsets == Some(offset..offset + 1);
            screen.check(named, &format!("read({offset}) is refused: {}", damage.what));
        }
        Err(other) => screen.check(false, &format!("read({offset}) is refused, but with: {other}")),
        Ok(_) => screen.check(false, &format!("read({offset}) RETURNED DAMAGED BYTES")),
    }
    let served = |neighbour: u64| {
        let line = notes.acknowledged.get(&neighbour).and_then(|line| input.line(*line));
        log.read(neighbour).is_ok_and(|record| Some(&record[..]) == line)
    };
    let (before, after) = (offset.saturating_sub(1), offset + 1);
    screen.check(served(before) && served(after), &format!("read({before}) and read({after}) are served"));
}
