//! `systemctl` of a process node as its callers run it: by path, side by side, killed in between.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lab::systemctl_double::state::Store;

use crate::world::{text, until};

/// A root with a shell script in the place of nodeadm and kubelet.
fn node(nodeadm: &str, kubelet: &str) -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_lab"), root.join("usr/bin/systemctl")).unwrap();
    for (name, script) in [("nodeadm", nodeadm), ("kubelet", kubelet)] {
        let path = root.join("usr/bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let environment = Store::of(&root).environment_file();
    fs::create_dir_all(environment.parent().unwrap()).unwrap();
    fs::write(environment, "PATH=/usr/bin:/bin\nMARK=of-pid-1\n").unwrap();
    (temporary, root)
}

fn admit(root: &Path) {
    fs::create_dir_all(root.join("run/rollcall-gate")).unwrap();
    fs::write(root.join("run/rollcall-gate/admitted"), "").unwrap();
    fs::create_dir_all(root.join("etc/eks/kubelet")).unwrap();
    fs::write(root.join("etc/eks/kubelet/environment"), "NODEADM_KUBELET_ARGS=--a --b\n").unwrap();
}

fn command(root: &Path, line: &str) -> Command {
    let mut command = Command::new(root.join("usr/bin/systemctl"));
    command.args(line.split_whitespace()).stdin(Stdio::null());
    command
}

fn call(root: &Path, line: &str) -> Output {
    command(root, line).output().unwrap()
}

fn property(root: &Path, unit: &str, name: &str) -> String {
    let shown = call(root, &format!("show -p {name} --value {unit}"));
    text(&shown.stdout).trim().to_owned()
}

#[test]
fn a_oneshot_blocks_and_tells_how_it_ended() {
    let (_keep, root) = node("echo \"$MARK $SECRET $*\"; exit ${FAIL:-0}", "");
    let unit = "rollcall-nodeadm@config.service";
    let mut started = command(&root, &format!("start {unit}"));
    assert!(started.env("SECRET", "of-the-caller").status().unwrap().success());
    let log = fs::read_to_string(Store::of(&root).log(unit)).unwrap();
    // PID 1's environment, not the caller's.
    assert!(log.starts_with("of-pid-1  init --skip run --config-source imds://user-data"), "{log}");
    assert_eq!(property(&root, unit, "Result,ExecMainStatus,ActiveState"), "success\n0\ninactive");

    fs::write(root.join("usr/bin/nodeadm"), "#!/bin/sh\nexit 3\n").unwrap();
    let failed = call(&root, &format!("start {unit}"));
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("exited with error code"), "{}", text(&failed.stderr));
    assert_eq!(property(&root, unit, "Result,ExecMainStatus,ActiveState"), "exit-code\n3\nfailed");
    assert!(call(&root, &format!("reset-failed {unit}")).status.success());
    assert_eq!(property(&root, unit, "ActiveState"), "inactive");
}

#[tokio::test]
async fn a_job_goes_on_when_its_systemctl_is_killed_and_is_joined_by_others() {
    let (_keep, root) = node(
        "cd \"$ROLLCALL_NODE_ROOT\"; mkdir alone || echo overlap; echo started; \
         while [ ! -e go ]; do sleep 0.05; done; rmdir alone; echo done",
        "",
    );
    let unit = "rollcall-nodeadm@run.service";
    let log = Store::of(&root).log(unit);
    let read = || fs::read_to_string(&log).unwrap_or_default();
    let mut first = command(&root, &format!("start {unit}")).spawn().unwrap();
    assert!(until(Duration::from_secs(10), || read().contains("started")).await);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(property(&root, unit, "ActiveState"), "activating");

    let mut others: Vec<_> =
        (0..4).map(|_| command(&root, &format!("start {unit}")).spawn().unwrap()).collect();
    fs::write(root.join("go"), "").unwrap();
    for other in &mut others {
        assert!(other.wait().unwrap().success());
    }
    // Who came after the job's end has started another; nobody has started one beside it.
    assert!(!read().contains("overlap"), "{}", read());
    assert_eq!(property(&root, unit, "Result"), "success");
}

#[test]
fn a_oneshot_that_ends_well_has_never_failed() {
    // Many short ones side by side: the end of the process, its record and the waiter's look fall
    // together in every order.
    let starts = |_| {
        let (_keep, root) = node("exit 0", "");
        for unit in ["rollcall-nodeadm@config", "rollcall-nodeadm@run"].repeat(15) {
            let started = call(&root, &format!("start {unit}"));
            assert!(started.status.success(), "{unit}: {}", text(&started.stderr));
        }
    };
    std::thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || starts(number));
        }
    });
}

#[tokio::test]
async fn kubelet_needs_admission_runs_on_and_is_restarted() {
    let (_keep, root) =
        node("", "echo \"kubelet $*\"; trap 'exit 0' TERM; while :; do sleep 600 & wait $!; done");
    let refused = call(&root, "start kubelet");
    assert_eq!(
        (refused.status.code(), text(&refused.stderr).trim()),
        (Some(1), "Assertion failed on job for kubelet.service.")
    );
    let log = Store::of(&root).log("kubelet.service");
    assert!(!log.exists(), "kubelet has run");

    admit(&root);
    assert!(call(&root, "start kubelet").status.success());
    assert_eq!(text(&call(&root, "is-active kubelet").stdout), "active\n");
    let says = || fs::read_to_string(&log).unwrap_or_default();
    assert!(
        until(Duration::from_secs(10), || says().contains("kubelet --a --b")).await,
        "{}",
        says()
    );

    let first = property(&root, "kubelet", "MainPID");
    let pid = nix::unistd::Pid::from_raw(first.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let restarted = || {
        let now = property(&root, "kubelet", "MainPID");
        now != "0" && now != first && property(&root, "kubelet", "NRestarts") == "1"
    };
    assert!(until(Duration::from_secs(20), restarted).await, "{}", says());

    assert!(call(&root, "stop kubelet").status.success());
    assert_eq!(property(&root, "kubelet", "ActiveState,Result,MainPID"), "inactive\nsuccess\n0");
    let unit = lab::systemctl_double::units::find(&root, "kubelet").unwrap();
    let gone = || !Store::of(&root).keeper_is_alive(unit);
    assert!(until(Duration::from_secs(10), gone).await, "its keeper has stayed");
}
