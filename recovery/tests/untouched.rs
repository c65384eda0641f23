//! Whoever only looks changes nothing: not a byte, not a date, not a name, and takes no lock.
//!
//! Every practice log, whole, repaired and half repaired, is looked at with every verb that does not say
//! `--apply`, and compared by all that the filesystem knows of it (access times aside); on a read-only
//! mount; beside a program that has the log open; and call by call, as the kernel sees it.
#![cfg(unix)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests: a failed expectation is how they speak, and they make real files"
)]

#[allow(unused, reason = "shared with the other tests")]
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use stonelog::{Durability, Options};
use support::practice::{Practice, Ran, difference, everything, for_each_kind, payload, run_here, settled};

fn tell(words: &str) {
    let _ = std::io::stderr().write_all(format!("{words}\n").as_bytes());
}

/// Every way to look at the log in `directory`; what is made goes to `elsewhere`.
fn looks(directory: &Path, elsewhere: &Path) -> Vec<Vec<String>> {
    let mut looks: Vec<Vec<String>> = Vec::new();
    let shown = directory.to_str().unwrap();
    let mut look = |verb: &str, arguments: &[&str]| {
        let words = [verb, shown].into_iter().chain(arguments.iter().copied());
        looks.push(words.map(str::to_string).collect());
    };
    for arguments in [&[][..], &["--json"], &["--quiet"]] {
        look("check", arguments);
    }
    for arguments in [&[][..], &["--json"]] {
        look("stat", arguments);
        look("plan", arguments);
        look("plan", &[&["--from-stores"], arguments].concat());
        look("plan", &[&["--accept-loss", "0..1", "--accept-loss", "60..90"], arguments].concat());
        look("repair", arguments);
        look("repair", &[&["--accept-loss", "17..18"], arguments].concat());
        look("rebuild", arguments);
        look("undo", arguments);
        look("map", arguments);
    }
    look("map", &["--all", "--ascii"]);
    for format in ["text", "hex", "json", "raw"] {
        look("dump", &["--format", format]);
        look("dump", &["--format", format, "--from", "17", "--limit", "3"]);
    }
    for format in ["text", "json"] {
        look("dump", &["--frames", "--format", format]);
    }
    let mut places: Vec<String> = ["0", "17", "66", "71", "999999"].map(String::from).to_vec();
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name == "MANIFEST" || name.ends_with(".store") || name.ends_with(".index"))
        .collect();
    names.sort();
    // (The large log has hundreds; all are of three kinds.)
    let mut wanted: Vec<&String> = names.iter().take(7).collect();
    wanted.extend(names.last());
    for name in wanted {
        places.extend([0, 512, 1024, 2100].map(|position| format!("{name}:{position}")));
    }
    for place in &places {
        look("explain", &[place]);
        look("explain", &[place, "--json"]);
    }
    let fresh = |name: &str| elsewhere.join(name).to_str().unwrap().to_string();
    look("map", &["--html", &fresh("map.html")]);
    look("salvage", &["--out", &fresh("salvaged")]);
    look("salvage", &["--out", &fresh("carved"), "--carve", "--json"]);
    look("salvage", &["--out", &fresh("beyond"), "--beyond-seals", "--partial-batches"]);
    looks
}

/// Looks in every way, and demands that nothing changed.
fn look(practice: &Practice, when: &str) {
    let elsewhere = tempfile::tempdir().unwrap();
    let before = everything(&practice.directory);
    for arguments in looks(&practice.directory, elsewhere.path()) {
        let ran = run_here(&arguments);
        // 16 would be a mistake of this test: nothing was looked at.
        assert!([0, 4, 8].contains(&ran.code), "{arguments:?} ended so: {ran:?}");
        let different = difference(&before, &everything(&practice.directory));
        assert!(
            different.is_empty(),
            "{} {when}: log-repair {} changed something: {different:#?}",
            practice.kind,
            arguments.join(" ")
        );
    }
    for made in ["map.html", "salvaged", "carved"] {
        // (A log that is half repaired is finished first.)
        assert!(elsewhere.path().join(made).exists() || when == "half repaired", "{when}: no {made}");
    }
}

#[test]
fn looking_changes_nothing() {
    for_each_kind("cargo test -p log-repair --test untouched looking", |kind| {
        let practice = Practice::new(kind);
        look(&practice, "as it was made");
        let arguments = practice.repair_arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if practice.run("repair", &arguments).code != 1 {
            return;
        }
        look(&practice, "repaired");
        // As a repair leaves it that was killed after its last move.
        let place = practice.directory.join("repair/1");
        fs::rename(place.join("undo"), place.join("journal")).unwrap();
        look(&practice, "half repaired");
    });
}

/// How this machine lets a directory be mounted read-only, seen by nobody else.
fn namespace() -> Result<Vec<&'static str>, String> {
    let ways = [vec!["unshare", "--mount"], vec!["unshare", "--user", "--map-root-user", "--mount"]];
    let mut why = String::new();
    for way in ways {
        let place = tempfile::tempdir().unwrap();
        let shown = place.path().to_str().unwrap();
        let ran =
            Command::new(way[0]).args(&way[1..]).args(["sh", "-c", READ_ONLY, "sh", shown, "true"]).output();
        match ran {
            Ok(output) if output.status.success() => return Ok(way),
            Ok(output) => why = String::from_utf8_lossy(&output.stderr).trim().to_string(),
            Err(error) => why = format!("no {}: {error}", way[0]),
        }
    }
    Err(why)
}

/// Mounts the directory `$1` read-only over itself, and runs the rest.
const READ_ONLY: &str = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@""#;

fn run_read_only(way: &[&str], practice: &Practice, arguments: &[String]) -> Ran {
    let mut command = Command::new(way[0]);
    command.args(&way[1..]).args(["sh", "-c", READ_ONLY, "sh", practice.shown()]);
    command.arg(env!("CARGO_BIN_EXE_log-repair")).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// What is said of a log on read-only media is what is said of it elsewhere.
#[test]
fn a_log_on_read_only_media_is_looked_at_like_any_other() {
    let way = match namespace() {
        Ok(way) => way,
        Err(why) => return tell(&format!("SKIPPED a_log_on_read_only_media: no read-only mount: {why}")),
    };
    for kind in ["killed", "flipped-byte", "many", "manifest-missing"] {
        let practice = Practice::new(kind);
        let elsewhere = tempfile::tempdir().unwrap();
        let before = everything(&practice.directory);
        for arguments in looks(&practice.directory, elsewhere.path()) {
            if arguments[0] == "explain" && !arguments[2].ends_with("17") {
                continue;
            }
            let made = elsewhere.path().join("salvaged");
            if arguments[0] == "salvage" && made.exists() {
                fs::remove_dir_all(&made).unwrap();
            }
            let ran = run_read_only(&way, &practice, &arguments);
            if matches!(arguments[0].as_str(), "salvage" | "map")
                && arguments.iter().any(|word| word.contains("--"))
            {
                assert!([0, 4].contains(&ran.code), "{kind}: {arguments:?} {ran:?}");
                continue;
            }
            let usual = run_here(&arguments);
            assert_eq!((ran.code, &ran.stdout), (usual.code, &usual.stdout), "{kind}: {arguments:?} {ran:?}");
        }
        for verb in ["repair", "rebuild", "undo"] {
            let arguments =
                [vec![verb.into(), practice.shown().into()], practice.repair_arguments()].concat();
            let arguments = if verb == "undo" { arguments[..3].to_vec() } else { arguments };
            let ran = run_read_only(&way, &practice, &arguments);
            assert_eq!(ran.code, 8, "{kind}: {arguments:?} {ran:?}");
            assert!(ran.stderr.contains("ead-only"), "{kind}: {arguments:?} {ran:?}");
        }
        assert_eq!(difference(&before, &everything(&practice.directory)), Vec::<String>::new(), "{kind}");
    }
}

/// A directory that nobody may write to, without a mount. (Nothing stops root.)
#[test]
fn a_log_without_the_right_to_write_is_looked_at_like_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let practice = Practice::new("flipped-byte");
    let mode = |mode| fs::set_permissions(&practice.directory, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let root = fs::write(practice.directory.join("may-I"), b"").is_ok();
    if root {
        let _ = fs::remove_file(practice.directory.join("may-I"));
        tell("SKIPPED a_log_without_the_right_to_write: this user may write anywhere");
    } else {
        look(&practice, "read-only");
        let arguments = practice.repair_arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(practice.run("repair", &arguments).code, 8);
    }
    mode(0o755);
}

/// Beside a program that has the log open: no lock is asked for, and what is found is called advisory.
#[test]
fn a_log_in_use_is_looked_at_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("log");
    let options = Options::new().segment_bytes(4096).durability(Durability::Always);
    let log = options.open(&directory).unwrap();
    for offset in 0..120 {
        log.append(payload(offset)).unwrap();
    }
    let before = settled(&directory);
    let elsewhere = tempfile::tempdir().unwrap();
    for arguments in looks(&directory, elsewhere.path()) {
        let ran = support::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        // Nothing is wrong with it. (There is no repair to take back, not every place is there, and who
        // carves does not know what there should be.)
        let exits: &[i32] = match arguments[0].as_str() {
            "undo" => &[8],
            "explain" => &[0, 8],
            "salvage" => &[0, 4],
            _ => &[0],
        };
        assert!(exits.contains(&ran.code), "{arguments:?} {ran:?}");
        let different = difference(&before, &everything(&directory));
        assert!(different.is_empty(), "log-repair {} changed {different:#?}", arguments.join(" "));
        let json = arguments.iter().any(|word| word == "--json");
        if matches!(arguments[0].as_str(), "check" | "plan" | "repair" | "rebuild" | "map") {
            let quiet = arguments.iter().any(|word| word == "--quiet" || word == "--html");
            let said = if json {
                ran.stdout.contains("\"advisory\": true")
            } else {
                ran.stdout.contains("advisory")
            };
            assert!(said || quiet, "{arguments:?} {ran:?}");
        }
        if arguments[0] == "stat" {
            assert!(
                ran.stdout.contains(if json { "\"in_use_by\": {" } else { "open for writing by process" }),
                "{arguments:?} {ran:?}"
            );
        }
    }
    let shown = directory.to_str().unwrap();
    for verb in ["repair", "rebuild", "undo"] {
        let ran = support::run(&[verb, shown, "--apply"]);
        assert_eq!(ran.code, 8, "{verb}: {ran:?}");
        assert!(ran.stderr.contains(&std::process::id().to_string()), "{verb} says who: {ran:?}");
    }
    assert_eq!(difference(&before, &everything(&directory)), Vec::<String>::new());
    assert_eq!(log.append(payload(120)).unwrap(), 120);
    log.close().unwrap();
}

/// As the kernel sees it: no file is opened to be written, none is made, nothing is synced or locked.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn no_system_call_changes_anything() {
    use support::trace::{Blow, End, follow};
    for kind in ["killed", "many", "manifest-missing"] {
        let practice = Practice::new(kind);
        let elsewhere = tempfile::tempdir().unwrap();
        for arguments in looks(&practice.directory, elsewhere.path()) {
            if arguments.iter().any(|word| word == "--html" || word == "--out") {
                continue;
            }
            let program = Path::new(env!("CARGO_BIN_EXE_log-repair"));
            let followed = match follow(program, &arguments, Blow::None) {
                Ok(followed) => followed,
                Err(why) => return tell(&format!("SKIPPED no_system_call_changes_anything: {}", why.0)),
            };
            assert!(matches!(followed.end, End::Exited(0 | 4 | 8)), "{arguments:?}: {followed:?}");
            assert_eq!(followed.changes, Vec::<String>::new(), "{kind}: {arguments:?}");
        }
        // And where something is made, it is seen.
        let page = practice.beside("map.html");
        let arguments = ["map", practice.shown(), "--html", page.to_str().unwrap()].map(str::to_string);
        let followed = follow(Path::new(env!("CARGO_BIN_EXE_log-repair")), &arguments, Blow::None).unwrap();
        assert!(!followed.changes.is_empty());
    }
}
