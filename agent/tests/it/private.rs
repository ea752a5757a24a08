//! The agent's memory holds the role's keys and the user data. It is never written out: a join that
//! aborts on a node leaves no core, and one on a directory, which may, shows what would be in it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::metadata;

const AGENT: &str = env!("CARGO_BIN_EXE_rollcall-agent");
const CANARY: &str = "wCanaryFEMIK7MDENGbPxRfiCYEXAMPLEKEY";
const PATIENCE: Duration = Duration::from_secs(60);

/// Aborts a join once it has spoken on the console below `root`.
fn abort(join: &mut Command, root: &Path) -> ExitStatus {
    std::fs::create_dir_all(root.join("dev")).unwrap();
    std::fs::write(root.join("dev/console"), "").unwrap();
    let user_data = format!("#!/bin/sh\nexport DB_PASSWORD={CANARY}\n");
    let mut child = join
        .env_clear()
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata::serve(user_data))
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !std::fs::read_to_string(root.join("dev/console")).unwrap().contains("\"failed\"") {
        assert!(start.elapsed() < PATIENCE, "the join has said nothing");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGABRT).unwrap();
    child.wait().unwrap()
}

/// Cores may be as large as they like; `$0` is where they fall, `$@` what is run.
const LIMITLESS: &str = r#"ulimit -c unlimited && cd "$0" && exec "$@""#;

/// What fell into a folder as a core.
fn core_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"))
    })
}

/// A root with nothing but the agent, the libraries that it is linked with, and a CA to trust.
fn furnish(root: &Path) {
    let ca = rcgen::generate_simple_self_signed(vec!["ca".into()]).unwrap().cert.pem();
    let certificates = root.join("etc/ssl/certs");
    std::fs::create_dir_all(&certificates).unwrap();
    std::fs::write(certificates.join("ca-certificates.crt"), ca).unwrap();
    let listed = Command::new("ldd").arg(AGENT).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for from in libraries.chain([AGENT]) {
        let to = if from == AGENT { root.join("agent") } else { root.join(&from[1..]) };
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_join_that_aborts_leaves_no_core() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if !Uid::effective().is_root() || pattern.contains('/') || pattern.starts_with('|') {
        println!("skipped: needs root to change the root, and cores that fall where one stands");
        return;
    }
    // On a directory the agent may be looked into, and this is what would be found.
    let looked_into = tempfile::tempdir().unwrap();
    let root = looked_into.path();
    let mut join = Command::new("/bin/sh");
    join.args(["-c", LIMITLESS]).arg(root).args([AGENT, "join", "--root"]).arg(root);
    assert!(abort(&mut join, root).core_dumped(), "no core falls here whoever aborts");
    let core = std::fs::read(core_in(root).unwrap()).unwrap();
    let has_canary = |bytes: &[u8]| bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes());
    assert!(has_canary(&core), "the canary is not where it is looked for");

    // On a node of its own: the same program, its root is `/`.
    let node = tempfile::tempdir().unwrap();
    furnish(node.path());
    let mut join = Command::new("/bin/sh");
    join.args(["-c", LIMITLESS]).arg(node.path());
    join.args(["/usr/sbin/chroot", ".", "/agent", "join"]);
    let ended = abort(&mut join, node.path());
    assert_eq!(ended.signal(), Some(Signal::SIGABRT as i32));
    assert!(!ended.core_dumped() && core_in(node.path()).is_none(), "a core was written: {ended}");
}
