//! Builds run by a double of Packer: a shell script that says what Packer would.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

fn order(dir: &Path, script: &str) -> Order {
    let packer = dir.join("packer");
    std::fs::write(&packer, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&packer, std::fs::Permissions::from_mode(0o755)).unwrap();
    Order {
        packer,
        template: "packer/".into(),
        var_files: vec!["a.json".into(), "b.json".into()],
        vars: vec!["subnet_id=subnet-1".into()],
        longest: Duration::from_secs(120),
    }
}

async fn bake(script: &str) -> (Result<String, BakeError>, Vec<Said>) {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    let order = order(dir.path(), script);
    let built = run(&order, &Interrupt::never(), |line| said.push(line.clone())).await;
    (built, said)
}

#[tokio::test]
async fn what_packer_makes_is_handed_back_and_what_it_says_is_told() {
    let (built, said) = bake(
        "echo '1,,ui,say,==> rollcall.amazon-ebs.x: Creating'; echo noise >&2\n\
         echo '1,rollcall.amazon-ebs.x,artifact,0,id,us-east-1:ami-0123'",
    )
    .await;
    assert_eq!(built.unwrap(), "ami-0123");
    assert!(said.contains(&Said::Step("Creating".into())), "{said:?}");
    assert!(said.contains(&Said::Detail("noise".into())), "{said:?}");
}

#[tokio::test]
async fn its_arguments_are_in_order() {
    let (_, said) = bake("for word in \"$@\"; do echo \"$word\"; done; exit 1").await;
    let words: Vec<String> = said
        .into_iter()
        .filter_map(|line| match line {
            Said::Detail(text) => Some(text),
            _ => None,
        })
        .collect();
    let expected = [
        "build",
        "-machine-readable",
        "-color=false",
        "-var-file=a.json",
        "-var-file=b.json",
        "-var",
        "subnet_id=subnet-1",
        "packer/",
    ];
    assert_eq!(words, expected);
}

#[tokio::test]
async fn a_build_that_fails_says_why() {
    let (built, _) = bake("echo '1,,ui,error,Script exited with 3\\nmore'; exit 1").await;
    assert_eq!(built.unwrap_err().to_string(), "the build failed: Script exited with 3");
    let (built, _) = bake("exit 7").await;
    assert!(built.unwrap_err().to_string().contains("7"));
    let (built, _) = bake("exit 0").await;
    assert!(matches!(built, Err(BakeError::NoImage)), "{built:?}");
    let dir = tempfile::tempdir().unwrap();
    let nowhere = Order { packer: "/nonexistent/packer".into(), ..order(dir.path(), "") };
    let missing = run(&nowhere, &Interrupt::never(), |_| {}).await.unwrap_err();
    assert_eq!(missing.exit_code(), ExitCode::PreflightBlocked);
    assert!(missing.hint().unwrap().contains("--packer"));
}

#[tokio::test]
async fn an_interrupt_is_handed_on_and_packer_takes_down_what_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'echo 1,,ui,say,cancelled; exit 1' INT\n\
                  echo 1,,ui,say,began\nwhile :; do sleep 0.05; done";
    let (ask, interrupt) = Interrupt::by_hand();
    let mut said = Vec::new();
    let order = order(dir.path(), script);
    let built = run(&order, &interrupt, |line| {
        if *line == Said::Step("began".into()) {
            ask.send(true).unwrap();
        }
        said.push(line.clone());
    });
    let built = built.await.unwrap_err();
    assert_eq!(built.exit_code(), ExitCode::Interrupted);
    assert_eq!(said.last(), Some(&Said::Step("cancelled".into())), "{said:?}");
}

/// What a build has started may outlive it, and hold its streams open.
#[tokio::test]
async fn it_ends_with_packer_whoever_holds_its_streams() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'exit 1' INT\nsleep 90 &\n\
                  echo 1,,ui,say,began\nwhile :; do sleep 0.05; done";
    let (ask, interrupt) = Interrupt::by_hand();
    let order = order(dir.path(), script);
    let built = run(&order, &interrupt, |line| {
        if *line == Said::Step("began".into()) {
            ask.send(true).unwrap();
        }
    });
    // Less than what holds the streams lives, and far more than Packer's double needs.
    let built = timeout(Duration::from_secs(60), built).await.unwrap();
    assert!(matches!(built, Err(BakeError::Interrupted)), "{built:?}");
}

#[tokio::test]
async fn one_that_takes_too_long_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let order = order(dir.path(), "while :; do sleep 0.05; done");
    let order = Order { longest: Duration::ZERO, ..order };
    let built = run(&order, &Interrupt::never(), |_| {}).await;
    assert!(matches!(built, Err(BakeError::TooLong { .. })), "{built:?}");
}
