//! The units as systemd reads them: nothing to complain of, and how much each is exposed.
//!
//! It takes systemd's own judge, `systemd-analyze`, and says so where there is none.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ANALYZE: &str = "/usr/bin/systemd-analyze";

/// Each unit's highest exposure, in tenths, as `systemd-analyze security` counts.
const EXPOSURE: [(&str, u32); 5] = [
    ("rollcall-agent.service", 20),
    ("rollcall-join.service", 30),
    ("rollcall-gpu-reset.service", 30),
    ("rollcall-canary.service", 25),
    ("rollcall-repair@.service", 35),
];

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn analyze(arguments: &[&str]) -> Option<Output> {
    if !Path::new(ANALYZE).exists() {
        eprintln!("skipped: there is no {ANALYZE} (Debian: apt-get install systemd)");
        return None;
    }
    Some(Command::new(ANALYZE).args(arguments).output().unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn no_unit_is_exposed_more_than_it_must_be() {
    for (unit, limit) in EXPOSURE {
        let path = units().join(unit).display().to_string();
        let limit = format!("--threshold={limit}");
        let arguments = ["security", "--offline=true", "--no-pager", &limit, &path];
        let Some(output) = analyze(&arguments) else { return };
        assert!(output.status.success(), "{unit}: {}", said(&output));
    }
}

#[test]
fn systemd_has_nothing_to_say_of_them() {
    let root = tempfile::tempdir().unwrap();
    let install = |path: &str, text: &[u8], mode| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    // What the units run has to be there.
    let ours = ["usr/bin/rollcall-agent", "usr/libexec/rollcall/fallback"];
    for program in ours.into_iter().chain(["usr/libexec/rollcall/repair", "bin/sh"]) {
        install(program, b"#!/bin/sh\n", 0o755);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(units()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".service") || name.ends_with(".path") {
            install(
                &format!("usr/lib/systemd/system/{name}"),
                &fs::read(entry.path()).unwrap(),
                0o644,
            );
            names.push(name.replace("@.", "@config."));
        }
    }
    for target in ["basic", "multi-user", "paths", "shutdown", "sysinit"] {
        let path = format!("usr/lib/systemd/system/{target}.target");
        install(&path, format!("[Unit]\nDescription={target}\n").as_bytes(), 0o644);
    }
    assert!(names.len() >= 6, "{names:?}");
    let root = format!("--root={}", root.path().display());
    let mut arguments = vec![root.as_str(), "verify"];
    arguments.extend(names.iter().map(String::as_str));
    let Some(output) = analyze(&arguments) else { return };
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
}
