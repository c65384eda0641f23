//! The process around [`log_repair::run`]: its arguments, its streams, Ctrl-C.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Most verbs only read. What a salvage made so far is no log yet, and a repair has changed nothing or goes on from
    // its journal: there is nothing to take back, and the process can end where it stands.
    // Without a handler (there may be none to get) the signal ends it too, with another code.
    let _ = ctrlc::set_handler(|| std::process::exit(log_repair::CANCELLED));
    ExitCode::from(log_repair::run(std::env::args_os(), log_repair::Streams::of_process()))
}
