//! One bad image, three hundred nodes: all agents of a pool fail at once, and Parameter Store takes
//! three reports a second from the whole account.
//!
//! The agents are the real ones, each on a directory of its own that has no NodeConfig to join with;
//! Parameter Store is the AWS emulator. What is measured is the emulator's own journal of calls. A
//! small server plays every node's metadata service.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use contract::ConsoleLine;
use contract::join_report::JoinOutcome;
use e2e::Programs;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// Nodes of the pool; the first argument says another number.
const NODES: usize = 300;
/// Reports a second that Parameter Store takes.
const RATE: f64 = 3.0;
/// So long after its node has failed every report has to be there.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two looks at how many have arrived.
const POLL: Duration = Duration::from_secs(5);
/// How much the agents yield to the emulator and to the metadata service: AWS is not short of time
/// because three hundred nodes share this machine.
const NICE: &str = "10";
/// The window in which no more than three times its share may be called.
const WINDOW_MS: i64 = 10_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let nodes = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(NODES);
    match storm(nodes).await {
        Ok(summary) => {
            // Data, for whoever collects it.
            let mut out = std::io::stdout().lock();
            let _ = std::io::Write::write_all(&mut out, format!("{summary}\n").as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("storm: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever watches.
fn say(text: &str) {
    let _ =
        std::io::Write::write_all(&mut std::io::stderr().lock(), format!("{text}\n").as_bytes());
}

async fn storm(nodes: usize) -> anyhow::Result<Value> {
    let programs = Programs::of_this_build()?;
    let dir = tempfile::tempdir().context("could not make a folder")?;
    let (emulator, greeting) = emulator(&programs, dir.path()).await?;
    let endpoint = format!("http://127.0.0.1:{}", greeting["port"]);
    let limit = json!({"ssm:PutParameter": {"rate": RATE, "burst": RATE}});
    post(&endpoint, "limits", &limit).await?;
    // The tag is another channel: these nodes may not write it.
    let denied = json!({"service": "ec2", "op": "CreateTags", "action": "error", "status": 403,
        "code": "UnauthorizedOperation"});
    post(&endpoint, "rules", &denied).await?;
    let metadata = metadata(nodes, &greeting).await?;

    let began = Instant::now();
    let mut agents = Vec::new();
    for node in 0..nodes {
        agents.push(agent(&programs, dir.path(), node, &metadata, &endpoint)?);
    }
    let puts = loop {
        tokio::time::sleep(POLL).await;
        // An emulator that three hundred agents keep busy may answer late.
        let Ok(puts) = puts(&endpoint).await else { continue };
        say(&format!("{:3} s: {} reports", began.elapsed().as_secs(), arrived(&puts).len()));
        if arrived(&puts).len() >= nodes || began.elapsed() > 2 * LIMIT {
            break puts;
        }
    };
    let failures =
        (0..nodes).map(|node| failure(dir.path(), node)).collect::<Result<Vec<_>, _>>()?;
    let memory = agents.iter().filter_map(resident_kib).max().unwrap_or_default();
    for agent in &mut agents {
        agent.start_kill().context("could not end an agent")?;
    }
    drop(emulator);
    judge(&puts, &failures, memory)
}

/// Holds what the journal says against what was promised.
fn judge(puts: &[Put], failures: &[Failure], memory_kib: u64) -> anyhow::Result<Value> {
    let nodes = failures.len();
    let delays: Vec<i64> = failures.iter().filter_map(|failure| failure.delay(puts)).collect();
    let slowest = delays.iter().max().copied().unwrap_or_default();
    let window =
        |from: i64| puts.iter().filter(move |put| (from..from + WINDOW_MS).contains(&put.at));
    let busiest = puts.iter().map(|put| window(put.at).count()).max().unwrap_or_default();
    // Three hundred have five minutes; fewer have a second each as well.
    let share = WINDOW_MS as f64 / 1000.0 * (nodes as f64 / LIMIT.as_secs_f64()).max(1.0);
    let ats = || failures.iter().map(|failure| failure.at);
    let apart = ats().max().unwrap_or_default() - ats().min().unwrap_or_default();
    let summary = json!({
        "nodes": nodes,
        "failedWithinSeconds": apart as f64 / 1000.0,
        "reports": delays.len(),
        "calls": puts.len(),
        "throttled": puts.iter().filter(|put| !put.arrived).count(),
        "slowestSeconds": slowest as f64 / 1000.0,
        "busiestTenSeconds": busiest,
        "shareOfTenSeconds": share,
        "largestAgentKib": memory_kib,
    });
    ensure!(delays.len() == nodes, "reports are lost: {summary}");
    ensure!(slowest <= LIMIT.as_millis() as i64, "too late: {summary}");
    ensure!(puts.len() as f64 <= 1.2 * nodes as f64, "too many calls: {summary}");
    ensure!(busiest as f64 <= 3.0 * share, "too many at once: {summary}");
    Ok(summary)
}

/// A node that has failed.
struct Failure {
    instance: String,
    /// When its console said so; milliseconds of the day, as [`Put`] counts them.
    at: i64,
}

impl Failure {
    /// How long after it the report was there.
    fn delay(&self, puts: &[Put]) -> Option<i64> {
        let own = |put: &&Put| put.arrived && put.name.ends_with(&self.instance);
        Some(puts.iter().find(own)?.at - self.at)
    }
}

/// The first line on a node's console that says that it has failed.
fn failure(dir: &Path, node: usize) -> anyhow::Result<Failure> {
    let path = root(dir, node).join("dev/console");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("could not read `{}`", path.display()))?;
    let mut lines = text.lines().filter_map(ConsoleLine::last_in);
    let line = lines.find(|line| line.outcome == JoinOutcome::Failed);
    let line = line.with_context(|| format!("node {node} has not failed: {text}"))?;
    let at = milliseconds(&line.at).with_context(|| format!("no time in {text}"))?;
    Ok(Failure { instance: instance(node), at })
}

fn root(dir: &Path, node: usize) -> PathBuf {
    dir.join(format!("n{node}"))
}

fn instance(node: usize) -> String {
    format!("i-{node:017x}")
}

/// One call of PutParameter.
struct Put {
    name: String,
    /// Milliseconds of the day; a run around midnight would have to be run again.
    at: i64,
    arrived: bool,
}

fn arrived(puts: &[Put]) -> BTreeSet<&str> {
    puts.iter().filter(|put| put.arrived).map(|put| put.name.as_str()).collect()
}

async fn puts(endpoint: &str) -> anyhow::Result<Vec<Put>> {
    let url = format!("{endpoint}/_control/calls?op=PutParameter");
    let calls: Value = serde_json::from_str(&curl(&[&url]).await?)?;
    let calls = calls.as_array().context("the journal is no list")?;
    let puts = calls.iter().map(|call| Put {
        name: call["params"]["Name"].as_str().unwrap_or_default().to_owned(),
        at: milliseconds(call["at"].as_str().unwrap_or_default()).unwrap_or_default(),
        arrived: call["status"] == 200,
    });
    Ok(puts.collect())
}

/// `2026-11-21T14:25:11.123+00:00` or `2026-11-21T14:25:11Z`.
fn milliseconds(at: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| at.get(range)?.parse::<i64>().ok();
    let seconds = (number(11..13)? * 60 + number(14..16)?) * 60 + number(17..19)?;
    let fraction = if at.as_bytes().get(19) == Some(&b'.') { number(20..23)? } else { 0 };
    Some(seconds * 1000 + fraction)
}

/// The emulator; it ends with its stdin.
async fn emulator(programs: &Programs, dir: &Path) -> anyhow::Result<(Child, Value)> {
    let python = std::env::var("LAB_PYTHON")
        .unwrap_or_else(|_| programs.root.join("target/venv/bin/python").display().to_string());
    let ca = dir.join("ca.pem");
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nZm9yIHRlc3Rz\n-----END CERTIFICATE-----\n")?;
    let mut child = Command::new(&python)
        .args(["-m", "rollcall_emulator", "--port", "0", "--state-dir"])
        .arg(dir.join("emulator"))
        .args(["--speed", "0.005", "--kubernetes-endpoint", "https://localhost:1"])
        .arg("--kubernetes-ca")
        .arg(&ca)
        .current_dir(programs.root.join("tests/lab/emulator"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("could not start the emulator with `{python}`: make setup"))?;
    let stdout = child.stdout.take().context("the emulator has no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    let greeting = serde_json::from_str(&line).context("the emulator does not greet")?;
    Ok((child, greeting))
}

fn agent(
    programs: &Programs,
    dir: &Path,
    node: usize,
    metadata: &str,
    endpoint: &str,
) -> anyhow::Result<Child> {
    let root = root(dir, node);
    std::fs::create_dir_all(root.join("dev"))?;
    std::fs::write(root.join("dev/console"), "")?;
    Command::new("nice")
        .args(["-n", NICE])
        .arg(programs.bin.join("rollcall-agent"))
        .args(["join", "--root"])
        .arg(&root)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("{metadata}/n/{node}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(root.join("log"))?)
        .kill_on_drop(true)
        .spawn()
        .context("could not start an agent")
}

fn resident_kib(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()?)).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Starts the metadata service of every node: the first part of the path says whose it is.
async fn metadata(nodes: usize, greeting: &Value) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let greeting = Arc::new(greeting.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let greeting = Arc::clone(&greeting);
            tokio::spawn(async move { answer(stream, nodes, &greeting).await });
        }
    });
    Ok(url)
}

async fn answer(stream: TcpStream, nodes: usize, greeting: &Value) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut request).await? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&request);
        let path = text.split(' ').nth(1).unwrap_or_default();
        let mut parts = path.trim_start_matches("/n/").splitn(2, '/');
        let node: usize = parts.next().unwrap_or_default().parse()?;
        let (status, body) = match value(parts.next().unwrap_or_default(), node, nodes, greeting) {
            Some(body) => ("200 OK", body),
            None => ("404 Not Found", String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
    }
}

fn value(path: &str, node: usize, nodes: usize, greeting: &Value) -> Option<String> {
    let id = instance(node);
    Some(match path {
        "latest/api/token" => "token".to_owned(),
        "latest/dynamic/instance-identity/document" => json!({
            "instanceId": id, "instanceType": "p5.48xlarge", "availabilityZone": "us-east-1a",
            "region": "us-east-1", "accountId": "123456789012",
        })
        .to_string(),
        "latest/meta-data/local-hostname" => format!("ip-10-0-{}-{}", node / 250, node % 250),
        "latest/meta-data/iam/security-credentials/" => "node".to_owned(),
        "latest/meta-data/iam/security-credentials/node" => json!({
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": greeting["accessKeyId"],
            "SecretAccessKey": greeting["secretAccessKey"], "Token": "",
            "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
        })
        .to_string(),
        // No NodeConfig: nothing to join with.
        "latest/user-data" => format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\
             Content-Type: text/cloud-config\n\nwrite_files:\n- path: /etc/rollcall/agent.yaml\n  \
             content: '{{version: 1, cluster: prod, pool: h100, poolSize: {nodes}}}'\n--B--\n"
        ),
        _ => return None,
    })
}

async fn post(endpoint: &str, what: &str, body: &Value) -> anyhow::Result<()> {
    let url = format!("{endpoint}/_control/{what}");
    curl(&["-X", "POST", "--data", &body.to_string(), &url]).await.map(drop)
}

async fn curl(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("curl").args(["-sf", "--max-time", "60"]).args(arguments).output();
    let output = output.await.context("could not run curl")?;
    if !output.status.success() {
        bail!("curl {} ends with {}", arguments.join(" "), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}
