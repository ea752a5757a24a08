//! The story: a fleet whose one GPU node is a virtual machine. `control up` ends when that node is Ready and its GPU
//! is proven and on offer; then the sandboxes are looked at.
//!
//! The lab runs a process node for every instance. For this one its agent is a program that does nothing: what
//! stays of the node is its IMDS, and the files of an EKS image, which the disk is made from.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use contract::ExitCode;
use contract::join_report::JoinOutcome;
use contract::{JoinReport, Phase};
use serde_json::Value;

use super::baked::Baked;
use super::disk::{self, Wish};
use super::guest::{Guest, Wiring};
use super::parts::Parts;
use super::sandbox;
use crate::programs::{Finished, Output, Programs};
use crate::world::World;

/// The pool's instance type: one GPU.
const TYPE: &str = "g5.xlarge";
/// How long the machine may take from power on to Ready, and the fleet with it: an emulated processor
/// is some thirty times slower, and others may be at work here.
const LONG: Duration = Duration::from_secs(900);
/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// What the process node runs instead of an agent.
const NO_AGENT: &str = "write=/usr/bin/rollcall-agent:#!/bin/sh\nexec sleep 100000";

/// Tells it in a lab below `dir`; what is seen on the way goes to `say`.
///
/// # Errors
/// When something is not so.
pub async fn tell(dir: &Path, parts: &Parts, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    let programs = Programs::of_this_build()?;
    let tarball = programs.bin.join("rollcall-agent.tar.gz");
    let baked = Baked::find(&programs.root.join("target/image"), &tarball)?;
    say(match &baked {
        Some(_) => "the disk is of the image that Packer made: target/image/disk",
        None => {
            "NO BAKED DISK: none was built here; what amis/files lists is installed in its place"
        }
    });
    let tarball = tarball.to_str().context("the build's folder is not UTF-8")?;
    // What an interrupted run has left.
    let lab = dir.join("lab");
    let at = lab.to_str().context("the lab's folder is not UTF-8")?;
    let _ = programs.run("lab", &["down", "--dir", at], Output::Captured, LONG).await;
    // AWS's own waits are not what is shown here.
    let gear = ["--kubernetes", "standin", "--nodes", "process", "--baked-agent", tarball];
    let gear = [&gear[..], &["--speed", "0.01"]].concat();
    let world = World::up(&lab, &gear).await?;
    let told = on_the_lab(dir, parts, baked.as_ref(), &world, say).await;
    let ended = world.down().await;
    told.and(ended)
}

async fn on_the_lab(
    dir: &Path,
    parts: &Parts,
    baked: Option<&Baked>,
    world: &World,
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    world.lab("fault", &["gpu/0", NO_AGENT]).await?.expect(ExitCode::Success)?;
    let fleet = dir.join("fleet.yaml");
    fs::write(&fleet, fleet_file()).context("could not write the fleet file")?;
    let file = fleet.to_str().context("the fleet file's name is not UTF-8")?;
    let began = Instant::now();
    let up = ["up", "-f", file, "--yes", "-o", "json"];
    let up = || world.programs.run("control", &up, Output::Captured, LONG);
    // What it thinks of a node that takes minutes for each phase is not what is shown here: it is asked again.
    let (guest, first) = tokio::join!(boot(dir, parts, baked, world, say), up());
    let (mut guest, powered) = guest?;
    drop(first);
    joined(&mut guest).await.with_context(|| tail(dir, &guest))?;
    judge_fleet(&up().await?.expect(ExitCode::Success).with_context(|| tail(dir, &guest))?)?;
    let (ready, whole) = (powered.elapsed().as_secs(), began.elapsed().as_secs());
    say(&format!(
        "✓ Ready, its GPU proven and on offer: {ready} s after power on ({whole} s in all)"
    ));
    judge_machine(&mut guest, baked, say).await.with_context(|| tail(dir, &guest))?;
    guest.cut().await;
    world.control(&["down", "--yes"]).await?.expect(ExitCode::Success)?;
    Ok(())
}

/// Waits for the instance, makes its disk, and powers it on.
async fn boot(
    dir: &Path,
    parts: &Parts,
    baked: Option<&Baked>,
    world: &World,
    say: &dyn Fn(&str),
) -> anyhow::Result<(Guest, Instant)> {
    let node = instance(world).await?;
    let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
    let id = text("instance");
    let root = world.dir.join("nodes").join(&id).join("root");
    let parts_of_lab = world.lab_status().await?["components"].clone();
    let endpoint =
        |part: &str| parts_of_lab[part]["endpoint"].as_str().unwrap_or_default().to_owned();
    let outside = vec![port_of(&endpoint("aws"))?, port_of(&endpoint("kubernetes"))?];
    let name = text("name");
    let address = name
        .strip_prefix("ip-")
        .and_then(|rest| rest.split('.').next()?.replace('-', ".").parse().ok())
        .with_context(|| format!("`{name}` has no address in it"))?;
    let wish = Wish {
        repository: world.programs.root.clone(),
        programs: world.programs.bin.clone(),
        baked: baked.cloned(),
        node: root.clone(),
        instance_type: TYPE.into(),
        address,
        outside,
        environment: [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin".to_owned()),
            ("AWS_ENDPOINT_URL", endpoint("aws")),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254".to_owned()),
            ("ROLLCALL_NODE_ROOT", "/".to_owned()),
            ("ROLLCALL_NODE_ADDRESS", "127.0.0.1".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into(),
    };
    let began = Instant::now();
    let disk = disk::make(&dir.join("disk"), parts, &wish)?;
    say(&format!("✓ a disk for {id} ({TYPE}, {name}): {} s", began.elapsed().as_secs()));
    let wiring = Wiring {
        address,
        imds: text("imds").trim_start_matches("http://").to_owned(),
        console: root.join("dev/console"),
        telling: dir.join("telling"),
    };
    Ok((Guest::start(parts, &disk.image, &disk.initrd, &wiring)?, Instant::now()))
}

/// The GPU pool's instance, once the lab's node for it has all of its files.
async fn instance(world: &World) -> anyhow::Result<Value> {
    let deadline = Instant::now() + LONG;
    loop {
        let status = world.lab_status().await?;
        let nodes = status["nodes"].as_array().into_iter().flatten();
        let mut ours = nodes.filter(|node| node["pool"] == "gpu" && node["stage"] == "running");
        if let Some(node) = ours.next() {
            return Ok(node.clone());
        }
        ensure!(Instant::now() < deadline, "there is no instance of the pool");
        tokio::time::sleep(POLL).await;
    }
}

/// The port of `https://localhost:5000`.
fn port_of(url: &str) -> anyhow::Result<u16> {
    let host = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let local = host.strip_prefix("localhost:").or_else(|| host.strip_prefix("127.0.0.1:"));
    let port = local.and_then(|port| port.parse().ok());
    port.with_context(|| format!("`{url}` is not at this host's 127.0.0.1"))
}

fn fleet_file() -> String {
    format!(
        "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: vm\nregion: us-east-1\nkubernetes: \"1.34\"\n\
         agent: {{baked: true}}\nnetwork: {{cidr: 10.7.0.0/16}}\npools:\n\
         \x20 - {{name: system, class: system, instanceType: m6i.large, size: {{desired: 1}}}}\n\
         \x20 - {{name: gpu, class: gpu, instanceType: {TYPE}, size: {{desired: 1}}}}\n"
    )
}

/// Until the machine says that its join has ended well: after a failure it proves again by itself.
async fn joined(guest: &mut Guest) -> anyhow::Result<()> {
    let deadline = Instant::now() + LONG;
    loop {
        let lines = guest.told();
        if report_in(&lines).is_ok_and(|report| report.outcome == JoinOutcome::Ready) {
            return Ok(());
        }
        ensure!(guest.is_up(), "the machine has switched itself off");
        ensure!(Instant::now() < deadline, "the machine has not joined");
        tokio::time::sleep(POLL).await;
    }
}

fn report_in(lines: &[String]) -> anyhow::Result<JoinReport> {
    let report = lines.iter().find_map(|line| line.strip_prefix("REPORT "));
    serde_json::from_str(report.context("there is no report")?).context("the report is not one")
}

fn judge_fleet(up: &Finished) -> anyhow::Result<()> {
    let report = up.json()?;
    ensure!(report["outcome"] == "ready", "the fleet is not ready: {report:#}");
    ensure!(report["nodes"]["ready"] == 2, "not every node is ready: {report:#}");
    Ok(())
}

/// What the machine itself says: its kernel's control groups, its units, its join, and its sandboxes.
async fn judge_machine(
    guest: &mut Guest,
    baked: Option<&Baked>,
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    let lines = all_told(guest).await?;
    let has = |wanted: &str| lines.iter().any(|line| line.starts_with(wanted));
    for wanted in [
        "CGROUP cgroup2fs",
        "ADMITTED yes",
        "UNIT rollcall-join.service active/running result=success restarts=0",
        "UNIT rollcall-agent.service active/running result=success restarts=0",
        "UNIT kubelet.service active/running",
        "UNIT cloud-final.service active/exited",
        // Ours has run nodeadm in its place.
        "UNIT nodeadm-run.service inactive/dead",
    ] {
        ensure!(has(wanted), "the machine does not say `{wanted}`: {lines:#?}");
    }
    let failed = lines.iter().find_map(|line| line.strip_prefix("FAILED "));
    ensure!(failed.is_none_or(|units| units.trim().is_empty()), "units have failed: {failed:?}");
    let report = report_in(&lines)?;
    ensure!(report.outcome == JoinOutcome::Ready, "the join is not Ready: {report:#?}");
    let phases = report.phases.len();
    ensure!(phases == Phase::ALL.len(), "{phases} phases are in the report");
    say(
        "✓ cgroup v2; both units run, none has failed, nodeadm-run never ran; eight phases are over",
    );
    if let Some(baked) = baked {
        judge_baked(&lines, baked)?;
        say(&format!(
            "✓ the agent that runs is the image's: sha256 {}, of the tarball {} in its manifest; a machine-id of its own",
            baked.agent, baked.tarball
        ));
    }
    let wrong = sandbox::wrong(&sandbox::read(&lines));
    ensure!(wrong.is_empty(), "the sandboxes are not as the units say:\n  {}", wrong.join("\n  "));
    let tried = sandbox::ROWS.len() * sandbox::Unit::ALL.len();
    say(&format!("✓ the sandboxes of both units hold: {tried} tries, each as the units claim"));
    Ok(())
}

/// What it says once its probes have ended and its agent was looked at.
async fn all_told(guest: &mut Guest) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + LONG;
    loop {
        let lines = guest.told();
        let agent = lines.iter().any(|line| line.starts_with("AGENT "));
        if agent && sandbox::is_whole(&sandbox::read(&lines)) {
            return Ok(lines);
        }
        ensure!(
            guest.is_up() && Instant::now() < deadline,
            "the probes have not ended: {lines:#?}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// That the machine is an instance of the image, and runs its agent.
fn judge_baked(lines: &[String], baked: &Baked) -> anyhow::Result<()> {
    let said = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let (tarball, agent) = (said("BAKED "), said("AGENT "));
    ensure!(tarball == baked.tarball, "the machine's image.json has the tarball `{tarball}`");
    ensure!(agent == baked.agent, "the agent that runs is `{agent}`, not {}", baked.agent);
    let id = said("MACHINE-ID ");
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(is_id, "its first boot has given the machine the id `{id}`");
    Ok(())
}

/// The end of what the machine has said, for a person who wants to know why.
fn tail(dir: &Path, guest: &Guest) -> String {
    let consoles = fs::read_dir(dir.join("lab/nodes")).into_iter().flatten().flatten();
    let mut text = String::new();
    for console in consoles.map(|node| node.path().join("root/dev/console")) {
        let said = fs::read(&console).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().rev().take(15).collect();
        text += &format!("{}:\n", console.display());
        text.extend(lines.into_iter().rev().map(|line| format!("  {line}\n")));
    }
    text + &guest.told().join("\n")
}
