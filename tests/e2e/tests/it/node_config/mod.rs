//! What the agent, the stand-in and the real nodeadm make of the same NodeConfigs.
//!
//! The agent's gate says before nodeadm runs what nodeadm will do; where the two differ, the gate
//! either keeps out a node that would have joined, or lets through one that will not.

mod documents;
mod nodeadm;
mod random;

use std::path::Path;

use agent::host::Root;
use agent::phases::configure::{self, Facts};
use serde_json::{Map, Value};

use self::documents::Case;
use self::nodeadm::{Imds, Nodeadm};

/// How many random merges are compared.
const ROUNDS: u64 = 40;

const AGENT: &str = "version: 1\ncluster: prod\npool: h100\n";

/// A node's files for one case.
fn node(case: &Case) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc/rollcall")).unwrap();
    std::fs::write(root.path().join("etc/rollcall/agent.yaml"), AGENT).unwrap();
    let directory = root.path().join("etc/eks/nodeadm.d");
    std::fs::create_dir_all(&directory).unwrap();
    for (name, content) in &case.files {
        std::fs::write(directory.join(name), content).unwrap();
    }
    root
}

fn ours(root: &Path, case: &Case) -> (Facts, bool) {
    let facts = configure::gather(&Root::new(root), case.user_data.as_deref());
    let is_open = configure::verdict(&facts).is_open();
    (facts, is_open)
}

/// Holds one program against the agent; a difference as text.
fn difference(program: &Nodeadm, imds: &Imds, case: &Case) -> Option<String> {
    let root = node(case);
    imds.serve(case.user_data.clone());
    let (facts, is_open) = ours(root.path(), case);
    let verdict = configure::verdict(&facts);
    let dump = program.run("dump", root.path(), imds);
    let check = program.run("check", root.path(), imds);

    // Go tells an empty CA from none, and is content with it.
    let has_empty_ca = facts.merged["spec"]["cluster"]["certificateAuthority"] == "";
    let is_stricter = (case.stricter || has_empty_ca) && !is_open;
    if check.is_ok() != is_open && !is_stricter {
        return Some(format!("check: {check:?}\nours: {verdict:?}"));
    }
    match dump {
        Ok(text) => {
            let dumped: Value = serde_json::from_str(&text).unwrap();
            let theirs = normal(&dumped["spec"]);
            let ours = normal(&facts.merged["spec"]);
            (!same(&theirs, &ours)).then(|| format!("theirs: {theirs:#}\nours: {ours:#}"))
        }
        Err(error) => {
            let is_refused = facts.unmergeable.is_some()
                || !facts.merged.is_object()
                || (facts.sources.iter())
                    .any(|s| matches!(s.configs, Err(configure::Trouble::Fatal(_))))
                || case.user_data.is_none();
            (!is_refused).then(|| format!("dump: {error}\nours: {}", facts.merged))
        }
    }
}

/// As `omitempty` writes it: what is empty is not there, but for what is in the free maps.
fn normal(spec: &Value) -> Value {
    fn walk(path: &str, value: &Value) -> Option<Value> {
        const FREE: [&str; 4] = [
            "kubelet.config",
            "containerd.baseRuntimeSpec",
            "instance.environment",
            "featureGates",
        ];
        match value {
            Value::Null => None,
            Value::Object(map) if FREE.contains(&path) => (!map.is_empty()).then(|| value.clone()),
            Value::Object(map) => {
                let kept: Map<_, _> = map
                    .iter()
                    .filter_map(|(key, value)| {
                        let path =
                            if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        Some((key.clone(), walk(&path, value)?))
                    })
                    .collect();
                (!kept.is_empty()).then_some(Value::Object(kept))
            }
            Value::String(text) if path == "containerd.config" && !text.is_empty() => {
                let table = text.parse::<toml::Table>();
                Some(table.map_or(value.clone(), |table| serde_json::to_value(table).unwrap()))
            }
            Value::String(text) => (!text.is_empty()).then(|| value.clone()),
            Value::Array(list) => (!list.is_empty()).then(|| value.clone()),
            other => Some(other.clone()),
        }
    }
    walk("", spec).unwrap_or_default()
}

/// Equal, and numbers as what they are worth: 1 and 1.0 are the same to Go.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_same = |(key, value): (&String, &Value)| {
                other.get(key).is_some_and(|other| same(value, other))
            };
            one.len() == other.len() && one.iter().all(is_same)
        }
        _ => one == other,
    }
}

#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn compare(program: Option<Nodeadm>, cases: impl IntoIterator<Item = Case>) {
    let Some(program) = program else {
        eprintln!("skipped: the real nodeadm is not built here (tests/lab/parts/setup.sh)");
        return;
    };
    let imds = Imds::start();
    let differences: Vec<String> = cases
        .into_iter()
        .filter_map(|case| {
            let difference = difference(&program, &imds, &case)?;
            Some(format!("== {}\n{case:?}\n{difference}", case.name))
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_agent_reads_documents_as_nodeadm_does() {
    compare(Nodeadm::real(), documents::all());
}

#[test]
fn the_agent_merges_as_nodeadm_does() {
    compare(Nodeadm::real(), (1..=ROUNDS).map(random::case));
}

#[test]
fn the_stand_in_is_like_the_agent_and_so_like_nodeadm() {
    let plain = documents::all().into_iter().filter(|case| !case.beyond_the_stand_in);
    compare(Some(Nodeadm::stand_in()), plain.chain((1..=ROUNDS).map(random::case)));
}
