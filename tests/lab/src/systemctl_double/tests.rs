//! The double as its callers see it.

use std::fs;
use std::path::Path;

use super::cli::{Answer, answer};
use super::state::{Active, Store, parse_environment};
use super::units;

fn node() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

async fn call(root: &Path, line: &str) -> Answer {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    answer(root, &arguments).await
}

#[tokio::test]
async fn kubelet_is_refused_while_admitted_is_missing() {
    let root = node();
    let refused = call(root.path(), "start kubelet.service").await;
    assert_eq!(refused.code, 1);
    assert_eq!(refused.stderr, "Assertion failed on job for kubelet.service.");
    let show = call(root.path(), "show -p ActiveState,AssertResult kubelet").await;
    assert_eq!(show.stdout, "ActiveState=inactive\nAssertResult=no\n");
    assert!(!Store::of(root.path()).log("kubelet.service").exists(), "kubelet has run");

    // Admitted, but nodeadm's config phase has not run: the mandatory file is missing.
    fs::create_dir_all(root.path().join("run/rollcall-gate")).unwrap();
    fs::write(root.path().join("run/rollcall-gate/admitted"), "").unwrap();
    let resources = call(root.path(), "start kubelet").await;
    assert_eq!(resources.code, 1);
    let show = call(root.path(), "show --property=ActiveState,Result,AssertResult kubelet").await;
    assert_eq!(show.stdout, "ActiveState=failed\nResult=resources\nAssertResult=yes\n");
    assert_eq!(call(root.path(), "reset-failed kubelet").await.code, 0);
    assert_eq!(call(root.path(), "is-active kubelet").await.stdout, "inactive\n");
}

#[tokio::test]
async fn answers_are_systemctls() {
    let root = node();
    let cases: [(&str, u8, &str); 12] = [
        ("show -p LoadState,ActiveState --value nothing.service", 0, "not-found\ninactive\n"),
        ("show -pLoadState containerd", 0, "LoadState=loaded\n"),
        ("show -p Nonsense containerd", 0, ""),
        ("is-active containerd", 3, "inactive\n"),
        ("is-active nothing", 4, "inactive\n"),
        ("is-active -q nothing", 4, ""),
        ("start containerd", 0, ""),
        ("is-active containerd", 0, "active\n"),
        ("restart containerd", 0, ""),
        ("stop containerd", 0, ""),
        ("daemon-reload", 0, ""),
        ("disable nodeadm-run", 0, ""),
    ];
    for (line, code, stdout) in cases {
        let answer = call(root.path(), line).await;
        assert_eq!((answer.code, answer.stdout.as_str()), (code, stdout), "{line}");
    }
    let cases = [
        ("start nothing", 5, "Failed to start nothing.service: Unit nothing.service not found."),
        ("start", 1, "Too few arguments."),
        ("frobnicate containerd", 1, "Unknown command verb frobnicate."),
        (
            "start rollcall-join",
            1,
            "systemctl-double: rollcall-join.service is run by the lab itself",
        ),
        ("start --job-mode=x a", 1, "systemctl-double: option `--job-mode=x` is not known here"),
    ];
    for (line, code, stderr) in cases {
        let answer = call(root.path(), line).await;
        assert_eq!((answer.code, answer.stderr.as_str()), (code, stderr), "{line}");
    }
}

#[tokio::test]
async fn each_start_is_an_invocation_of_its_own() {
    let root = node();
    let id = async || call(root.path(), "show -p InvocationID --value containerd").await.stdout;
    call(root.path(), "start containerd").await;
    let first = id().await;
    assert_eq!(first.trim().len(), 32);
    call(root.path(), "start containerd").await;
    assert_eq!(id().await, first, "a start of what is active changes nothing");
    call(root.path(), "restart containerd").await;
    assert_ne!(id().await, first);
}

#[test]
fn gpu_units_exist_where_the_image_has_them() {
    let root = node();
    assert_eq!(units::find(root.path(), "nvidia-persistenced"), None);
    fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    fs::write(root.path().join("usr/bin/nvidia-ctk"), "").unwrap();
    assert!(units::find(root.path(), "nvidia-persistenced").is_some());
}

#[test]
fn a_service_whose_process_and_keeper_are_gone_has_failed() {
    let root = node();
    let store = Store::of(root.path());
    let unit = units::find(root.path(), "kubelet").unwrap();
    let gone = crate::processes::ProcessId { pid: i32::MAX, started: 1 };
    store.update(unit, |state| *state = state.starting(1).running(Some(gone), 2)).unwrap();
    let state = store.load(unit);
    assert_eq!((state.active, state.result.as_str()), (Active::Failed, "signal"));
}

#[test]
fn environment_files_are_read_as_systemd_reads_them() {
    let text = "# comment\nA=1\n B = 'x y' \nC=\"z=z\"\nnonsense\n;D=1\n";
    let read = parse_environment(text);
    let pairs: Vec<(&str, &str)> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("A", "1"), ("B", "x y"), ("C", "z=z")]);
}
