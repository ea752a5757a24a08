//! A lab comes and goes, and leaves nothing.

use std::path::Path;
use std::time::Duration;

use lab::processes::{self, ProcessId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Lab, QUICK, lab, text, until};

fn supervisor(lab: &Lab) -> i32 {
    i32::try_from(lab.status()["supervisor"].as_i64().unwrap()).unwrap()
}

#[tokio::test]
async fn two_labs_side_by_side_leave_nothing() {
    let (one, other) = (Lab::up(&[]), Lab::up(&[]));
    assert_ne!(one.status()["endpoint"], other.status()["endpoint"]);
    assert_ne!(one.record()["api"], other.record()["api"]);

    let env = std::fs::read_to_string(one.dir().join("env")).unwrap();
    assert!(env.contains(one.status()["endpoint"].as_str().unwrap()), "{env}");
    let again = one.call("up", &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is up in"), "{}", text(&again.stderr));

    let pid = supervisor(&one);
    let mut family = processes::descendants(pid);
    assert!(!family.is_empty(), "no emulator below {pid}");
    family.push(ProcessId::of(pid).unwrap());
    let down = one.call("down", &[]);
    assert!(down.status.success(), "{}", text(&down.stderr));
    assert!(text(&down.stdout).contains("no process and no port is left"));
    assert!(family.iter().all(|id| !id.is_alive()), "still alive: {family:?}");
    assert_eq!(processes::of_lab(&one.dir().canonicalize().unwrap()), []);

    // The other one does not notice, and ending twice is no error.
    assert_eq!(other.status()["nodes"].as_array().map(Vec::len), Some(0));
    assert_eq!(one.call("down", &[]).status.code(), Some(0));
}

#[tokio::test]
async fn what_a_killed_lab_leaves_is_swept() {
    let lab = Lab::up(&[]);
    let pid = supervisor(&lab);
    let family = processes::descendants(pid);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    // Its emulator sees its standard input close.
    let ended = until(Duration::from_secs(10), || family.iter().all(|id| !id.is_alive())).await;
    assert!(ended, "survived the supervisor: {family:?}");

    let status = lab.call("status", &[]);
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status.stderr).contains("lab up"), "{}", text(&status.stderr));
    assert_eq!(lab.call("down", &[]).status.code(), Some(0));
    assert!(!lab.dir().join("lab.json").exists());
}

#[tokio::test]
async fn a_lab_ends_with_its_directory() {
    let lab = Lab::up(&[]);
    let pid = supervisor(&lab);
    let mut family = processes::descendants(pid);
    family.push(ProcessId::of(pid).unwrap());
    std::fs::remove_dir_all(lab.dir()).unwrap();
    let ended = until(Duration::from_secs(20), || family.iter().all(|id| !id.is_alive())).await;
    assert!(ended, "survived the directory: {family:?}");
}

#[test]
fn one_sentence_says_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let dir = empty.path().to_str().unwrap();
    let missing = "/nonexistent/lab";
    let cases: [(&[&str], i32, &str); 7] = [
        (&["status", "--dir", dir], 1, "start one with lab up"),
        (&["status", "--dir", missing], 1, "start one with lab up"),
        (&["fault", "--dir", dir, "gpu/1", "gpu-missing"], 1, "start one with lab up"),
        (&["down", "--dir", missing], 0, ""),
        (&["fault", "--dir", dir, "gpu/1", "nonsense"], 64, "lab fault --help"),
        (&["fault", "--dir", dir, "nowhere", "gpu-missing"], 64, "POOL/INDEX"),
        (&["up", "--dir", dir, "--speed", "0"], 64, "above 0"),
    ];
    for (arguments, code, expected) in cases {
        let ended = lab(arguments);
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    assert_eq!(lab(&["frobnicate"]).status.code(), Some(64));
    assert_eq!(lab(&["--help"]).status.code(), Some(0));
}

#[test]
fn an_emulator_that_cannot_start_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let dir = empty.path().to_str().unwrap();
    let up = lab(&[&["up", "--dir", dir, "--python", "/bin/false"][..], &QUICK].concat());
    assert_eq!(up.status.code(), Some(1));
    assert!(text(&up.stderr).contains("the emulator did not come up"), "{}", text(&up.stderr));
    assert_eq!(processes::of_lab(Path::new(dir)), []);
    let none = lab(&[&["up", "--dir", dir, "--python", "/nonexistent"][..], &QUICK].concat());
    assert!(text(&none.stderr).contains("make setup"), "{}", text(&none.stderr));
}
