//! Bad input: all problems at once, one sentence that helps, a documented exit code, and nothing
//! touched. None of these needs a lab.

use std::time::Duration;

use contract::ExitCode;
use e2e::Programs;
use e2e::programs::{Finished, Output};

const FLEET: &str = "examples/demo.yaml";

pub(crate) async fn control(env: &[(&str, &str)], args: &[&str]) -> Finished {
    let mut programs = Programs::of_this_build().unwrap();
    programs.env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    programs.run("control", args, Output::Captured, Duration::from_secs(60)).await.unwrap()
}

/// Credentials of nobody, and an endpoint where nobody answers.
pub(crate) const NOWHERE: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "none"),
    ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    ("AWS_REGION", "us-east-1"),
];

#[tokio::test]
async fn a_fleet_file_gets_all_of_its_problems_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.yaml");
    let text = "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nregion: us-east-1\n\
        kubernetes: \"1.34\"\nagent: {publish: true}\nnetwrok: {}\npools:\n  - name: system\n    \
        class: system\n    instanceType: m6i.large\n    size: {min: 1, desired: 1, max: 1}\n  \
        - name: lease\n    class: gpus\n    instanceType: p5.48xlarge\n    \
        size: {min: 5, desired: 4, max: two}\n";
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    for args in [&["plan", "-f", file][..], &["up", "-f", file, "--yes"][..]] {
        let said = control(NOWHERE, args).await;
        assert_eq!(said.code, ExitCode::PreflightBlocked as i32, "{}", said.stderr);
        for part in ["netwrok", "network", "pools[1].name", "pools[1].class", "pools[1].size"] {
            assert!(said.stderr.contains(part), "no `{part}` in:\n{}", said.stderr);
        }
        assert_eq!(said.stdout, "");
    }
}

#[tokio::test]
async fn without_a_terminal_and_without_yes_up_refuses_at_once() {
    for verb in ["up", "down"] {
        let args: &[&str] = if verb == "up" { &["up", "-f", FLEET] } else { &["down"] };
        let said = control(NOWHERE, args).await;
        assert_eq!(said.code, ExitCode::Usage as i32, "{verb}: {}", said.stderr);
        assert!(said.stderr.contains("--yes"), "{verb}: {}", said.stderr);
    }
}

#[tokio::test]
async fn an_endpoint_where_nobody_answers_is_named() {
    let said = control(NOWHERE, &["status"]).await;
    assert_eq!(said.code, ExitCode::Error as i32);
    assert!(said.stderr.contains("http://127.0.0.1:9"), "{}", said.stderr);
    assert!(said.stderr.lines().count() <= 4, "more than a sentence:\n{}", said.stderr);
}

#[tokio::test]
async fn missing_credentials_are_named() {
    let env = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_PROFILE", ""),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    ];
    let said = control(&env, &["status"]).await;
    assert_eq!(said.code, ExitCode::Error as i32);
    assert!(said.stderr.contains("credentials"), "{}", said.stderr);
}

#[tokio::test]
async fn a_lab_that_is_not_up_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let args = ["status", "--dir", dir.path().to_str().unwrap()];
    let said = programs.run("lab", &args, Output::Captured, Duration::from_secs(10)).await.unwrap();
    assert_eq!(said.code, ExitCode::Error as i32);
    assert!(said.stderr.contains("lab up"), "{}", said.stderr);
}

#[tokio::test]
async fn an_unknown_reason_gets_the_nearest_one() {
    let said = control(&[], &["explain", "GpuCountShot"]).await;
    assert_eq!(said.code, ExitCode::Usage as i32);
    assert!(said.stderr.contains("GpuCountShort"), "{}", said.stderr);
}
