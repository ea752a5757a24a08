//! Bad fleet files (`tests/e2e/fleets/`): each gets all of its problems, with their paths, and touches
//! nothing. What is expected stands in the file itself, in lines that begin with `#!`.

use std::path::Path;

use contract::ExitCode;

use crate::refusals::{NOWHERE, control};

#[tokio::test]
async fn every_bad_fleet_file_gets_all_of_its_problems() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fleets");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let wanted: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        assert!(!wanted.is_empty(), "{} expects nothing", path.display());
        // Nobody answers where these credentials lead: a call would end otherwise.
        let said = control(NOWHERE, &["up", "-f", path.to_str().unwrap(), "--yes"]).await;
        assert_eq!(said.code, ExitCode::PreflightBlocked as i32, "{}", said.stderr);
        assert_eq!(said.stdout, "");
        let lines = said.stderr.lines().skip(1).filter(|line| !line.starts_with("hint: "));
        let found: Vec<String> = lines.filter(|line| !line.is_empty()).map(problem).collect();
        assert_eq!(found, wanted, "{}", path.display());
        count += 1;
    }
    assert!(count >= 40, "{count} files");
}

/// `  path    message` as `path: message`.
fn problem(line: &str) -> String {
    let line = line.trim();
    let (path, message) = line.split_once("  ").unwrap_or((line, ""));
    format!("{path}: {}", message.trim())
}

#[tokio::test]
async fn files_are_laid_over_each_other_and_values_over_them() {
    let dir = tempfile::tempdir().unwrap();
    let over = dir.path().join("prod.yaml");
    std::fs::write(&over, "name: prod\npools: [{name: gpu, size: {desired: 9, max: 4}}]\n")
        .unwrap();
    let over = over.to_str().unwrap();
    let files = ["plan", "-f", "examples/demo.yaml", "-f", over];
    let said = control(NOWHERE, &files).await;
    assert_eq!(said.code, ExitCode::PreflightBlocked as i32, "{}", said.stderr);
    assert!(said.stderr.contains("pools[1].size.max"), "{}", said.stderr);
    assert!(said.stderr.contains("examples/demo.yaml + "), "{}", said.stderr);
    // Set right on the command line, it is a fleet: the next thing is an endpoint that is silent.
    let set = [&files[..], &["--set", "pools.gpu.size.max=9"]].concat();
    let said = control(NOWHERE, &set).await;
    assert_eq!(said.code, ExitCode::Error as i32, "{}", said.stderr);
    let unset = control(NOWHERE, &[&files[..], &["--set", "pools.h200.size.max=9"]].concat()).await;
    assert!(unset.stderr.contains("there is no item `h200`"), "{}", unset.stderr);
}
