//! `make e2e-setup` on machines that lack what it needs: it says so, and ends.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// What the script itself is made of; programs that get parts are not among them.
const TOOLS: [&str; 23] = [
    "bash",
    "cat",
    "chmod",
    "cut",
    "dirname",
    "dpkg-query",
    "env",
    "flock",
    "grep",
    "head",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sh",
    "sha256sum",
    "tail",
    "timeout",
    "uname",
];
/// What gets parts.
const GETTERS: [&str; 5] = ["apt-get", "dpkg-deb", "gcc", "go", "python3"];
/// A script that is bounded by 2 s is done long before; one that hangs never is.
const PATIENCE: Duration = Duration::from_secs(120);

fn found(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|file| file.exists()).unwrap()
}

/// What the setup says on a machine with these programs alone, and what it leaves in its cache.
async fn setup(bin: &Path, cache: &Path) -> (String, serde_json::Value) {
    for tool in TOOLS {
        symlink(found(tool), bin.join(tool)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("parts/setup.sh");
    let asked = Command::new(script)
        .env("PATH", bin)
        .env("XDG_CACHE_HOME", cache)
        .env("E2E_SETUP_SECONDS", "2")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let said = tokio::time::timeout(PATIENCE, asked).await.expect("it hangs").unwrap();
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(said.status.success(), "what cannot be had is no failure: {text}");
    let folder = text.lines().last().unwrap().rsplit("parts are in ").next().unwrap();
    let parts = serde_json::from_slice(&std::fs::read(folder).unwrap()).unwrap();
    (text, parts)
}

fn skipped(parts: &serde_json::Value, part: &str, why: &str) {
    let entry = &parts[part];
    assert_eq!(entry["state"], "skipped", "{part}: {entry}");
    assert!(entry["why"].as_str().unwrap().contains(why), "{part}: {entry}");
}

#[tokio::test]
async fn without_the_tools_each_part_is_skipped_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, cache) = (dir.path().join("bin"), dir.path().join("cache"));
    std::fs::create_dir(&bin).unwrap();
    let (said, parts) = setup(&bin, &cache).await;
    for (part, why) in [
        ("kubernetes", "go is missing"),
        ("nodeadm", "go is missing"),
        ("awscli", "python3 is missing"),
        ("pause", "gcc is missing"),
        ("debian", "apt-get is missing"),
    ] {
        skipped(&parts, part, why);
        assert!(said.contains(&format!("    {part}: {why}")), "{said}");
    }
}

#[tokio::test]
async fn tools_that_hang_are_given_up_and_nothing_half_made_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, cache) = (dir.path().join("bin"), dir.path().join("cache"));
    std::fs::create_dir(&bin).unwrap();
    symlink(found("sleep"), bin.join("sleep")).unwrap();
    for getter in GETTERS {
        let path = bin.join(getter);
        std::fs::write(&path, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, executable).unwrap();
    }
    let (_, parts) = setup(&bin, &cache).await;
    skipped(&parts, "pause", "not done within");
    skipped(&parts, "kubernetes", "the time is up");
    let folders = std::fs::read_dir(cache.join("rollcall-lab")).unwrap();
    let folders: Vec<_> = folders
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert!(matches!(folders.as_slice(), [one] if one.starts_with("set-")), "{folders:?}");
}
