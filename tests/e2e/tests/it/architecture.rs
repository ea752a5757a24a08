//! What the tree promises: the two orders, where `unsafe` may stand, and that the products know
//! nothing of the world that tests them.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file below `dir` with one of these extensions; none: every file.
fn files(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if extensions.is_empty() || extensions.contains(&extension) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "nothing below {}", dir.display());
    found
}

fn rust_files() -> Vec<PathBuf> {
    [
        "contract",
        "agent",
        "control",
        "nvml-ext",
        "eks-token",
        "tests/lab",
        "tests/nvml-sim",
        "tests/e2e",
    ]
    .into_iter()
    .flat_map(|package| files(&root().join(package), &["rs"]))
    .collect()
}

/// The line without its `//` comment. Good enough: no string of ours holds `//` but in an address.
fn code_of(line: &str) -> &str {
    match line.find("//") {
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    }
}

#[test]
fn the_products_know_nothing_of_the_world_that_tests_them() {
    for package in ["agent", "control", "eks-token"] {
        for path in files(&root().join(package), &[]) {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for (number, line) in text.lines().enumerate() {
                let words = code_of(line).split(|c: char| !c.is_alphanumeric() && c != '_');
                for word in words.map(str::to_lowercase) {
                    let forbidden = ["lab", "demo", "moto"].contains(&word.as_str());
                    assert!(!forbidden, "{}:{}: {line}", path.display(), number + 1);
                }
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in rust_files() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} opens without //!", path.display());
    }
}

#[test]
fn unsafe_stands_where_c_begins_and_nowhere_else() {
    // The word is put together here, so that this file does not find itself.
    let keyword = ["un", "safe"].concat();
    for path in rust_files() {
        let at = path.to_string_lossy();
        if at.contains("/nvml-ext/") || at.contains("/nvml-sim/") {
            continue;
        }
        let begins = [" {", " fn", " impl", " extern", "("].map(|next| format!("{keyword}{next}"));
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let found = begins.iter().any(|begin| code_of(line).contains(begin.as_str()));
            assert!(!found, "{at}:{}: {line}", number + 1);
        }
    }
}

/// The order of the `mod` lines that name `wanted`.
fn module_order(file: &str, wanted: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    text.lines()
        .filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';'))
        .filter(|name| wanted.contains(name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_join_reads_in_order() {
    let labels: Vec<_> = contract::Phase::ALL.iter().map(|phase| phase.label()).collect();
    assert_eq!(module_order("agent/src/phases/mod.rs", &labels), labels);
}

#[test]
fn the_layer_cake_reads_in_order() {
    let layers = ["network", "identity", "cluster", "addons", "system", "gpu"];
    assert_eq!(module_order("control/src/layers/mod.rs", &layers), layers);
}
