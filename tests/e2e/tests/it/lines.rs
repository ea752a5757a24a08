//! One life of a fleet as a script reads it: each line of `-o jsonl` against the published schema, and
//! what `wait` and `verify` say of it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use contract::ExitCode;
use e2e::Finished;
use e2e::torture::lives::Stage;
use serde_json::{Value, json};

/// Says of each line on stdin whether the schema takes it, by a validator of somebody else's.
const VALIDATE: &str = r#"
import fastjsonschema, json, sys
validate = fastjsonschema.compile(json.load(open(sys.argv[1])))
for line in sys.stdin:
    try:
        validate(json.loads(line))
        print("ok")
    except fastjsonschema.JsonSchemaException as error:
        print(error.message)
"#;

/// The verdict on each of the lines.
fn validated(stage: &Stage, lines: &[Value]) -> Vec<String> {
    let root = &stage.world.programs.root;
    let python = std::env::var_os("LAB_PYTHON")
        .map_or_else(|| root.join("target/venv/bin/python"), Into::into);
    let schema = root.join("docs/events.schema.json");
    let mut validator = Command::new(python)
        .args(["-c", VALIDATE])
        .arg(schema)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = validator.stdin.take().unwrap();
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    // Its answers are fewer bytes than a pipe holds.
    stdin.write_all(format!("{}\n", text.join("\n")).as_bytes()).unwrap();
    drop(stdin);
    let said = validator.wait_with_output().unwrap();
    assert!(said.status.success(), "no validator: make setup");
    String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn run(stage: &Stage, args: &[&str]) -> Finished {
    stage.world.control(args).await.unwrap()
}

/// The lines of a verb: version first, result last, and the schema takes each.
async fn lines(stage: &Stage, args: &[&str], code: ExitCode) -> Vec<Value> {
    let args = [args, &["-o", "jsonl"]].concat();
    let ended = run(stage, &args).await.expect(code).unwrap();
    let lines: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (line, verdict) in lines.iter().zip(validated(stage, &lines)) {
        assert_eq!(verdict, "ok", "{args:?}: {line:#}");
    }
    let (first, last) = (&lines[0], lines.last().unwrap());
    assert_eq!((&first["type"], &first["verb"]), (&json!("version"), &json!(args[0])));
    assert_eq!((&last["type"], &last["exit"]), (&json!("result"), &json!(code as u8)), "{last:#}");
    lines
}

fn of_type<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_as_published_and_a_running_fleet_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let (fleet, tarball) = (stage.fleet.to_str().unwrap(), stage.tarball.to_str().unwrap());
    let of_file = ["-f", fleet, "--agent-tarball", tarball];

    let plan = lines(&stage, &[&["plan"], &of_file[..]].concat(), ExitCode::Success).await;
    let report = of_type(&plan, "report")[0];
    assert_eq!(of_type(&plan, "change").len(), report["data"]["add"], "{report:#}");

    let up = lines(&stage, &[&["up", "--yes"], &of_file[..]].concat(), ExitCode::Success).await;
    let parts: Vec<_> = of_type(&up, "part_end").iter().map(|line| line["part"].clone()).collect();
    let layers = ["network", "identity", "cluster", "addons", "system", "gpu"];
    assert_eq!(parts, layers.map(Value::from));
    assert!(of_type(&up, "node").iter().any(|node| node["state"] == "ready"), "{up:#?}");
    let changed = of_type(&up, "report")[0]["data"]["changed"].clone();
    assert_eq!(of_type(&up, "step").len(), changed, "{changed:#}");

    answers(&stage).await;

    lines(&stage, &["status"], ExitCode::Success).await;
    let dry = lines(&stage, &["down", "--dry-run"], ExitCode::Success).await;
    assert!(of_type(&dry, "report")[0]["data"]["count"].as_u64().unwrap() > 20, "{dry:#?}");
    let down = lines(&stage, &["down", "--yes"], ExitCode::Success).await;
    assert_eq!(of_type(&down, "report")[0]["data"]["leftovers"], 0);

    std::fs::write(&stage.fleet, "name: prod\npools: 7\n").unwrap();
    let bad = lines(&stage, &["plan", "-f", fleet], ExitCode::PreflightBlocked).await;
    let problems = bad.last().unwrap()["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem["path"] == "pools"), "{problems:#?}");

    // A schema that takes anything proves nothing.
    let mut spoiled = up;
    for line in &mut spoiled {
        line.as_object_mut().unwrap().remove("ts");
    }
    spoiled.push(json!({"ts": "2026-11-21T20:00:00.000Z", "type": "node", "at": "gpu/0"}));
    assert!(validated(&stage, &spoiled).iter().all(|verdict| verdict != "ok"));
    stage.world.down().await.unwrap();
}

/// What `wait` and `verify` say of the fleet that is up.
async fn answers(stage: &Stage) {
    for what in ["cluster", "nodes"] {
        let waited = run(stage, &["wait", what, "--timeout", "60s", "-o", "json"]).await;
        let waited = waited.expect(ExitCode::Success).unwrap().json().unwrap();
        assert_eq!((&waited["came"], &waited["ready"]), (&json!(true), &json!(1)), "{waited:#}");
    }
    let none = ["wait", "cluster", "--fleet", "another", "--timeout", "1s"];
    let none = run(stage, &none).await.expect(ExitCode::GateTimedOut).unwrap();
    assert!(none.stdout.contains("there is no cluster"), "{}", none.stdout);

    let verified = run(stage, &["verify", "-o", "json"]).await.expect(ExitCode::Success).unwrap();
    let verified = verified.json().unwrap();
    let checks = verified["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cluster", "api", "nodes", "gpus", "pods", "images", "orphans"]);
    let junit = run(stage, &["verify", "-o", "junit"]).await.expect(ExitCode::Success).unwrap();
    assert!(junit.stdout.contains("tests=\"7\" failures=\"0\""), "{}", junit.stdout);
    // What is wrong is more than nodes: another code.
    let nobody = run(stage, &["verify", "--fleet", "another", "-o", "junit"]).await;
    let nobody = nobody.expect(ExitCode::Error).unwrap();
    assert!(nobody.stdout.contains("EKS lists no cluster `another`"), "{}", nobody.stdout);
}
