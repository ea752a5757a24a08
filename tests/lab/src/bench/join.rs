//! Joins on one node, again and again: the agent's, and what it stands for by itself (nodeadm's two
//! phases and kubelet, started one after the other with nothing proven).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contract::join_report::{JoinOutcome, JoinReport};
use contract::names::{
    ADMITTED_PATH, REPORT_PATH, UNIT_JOIN, UNIT_KUBELET, UNIT_NODEADM_CONFIG, UNIT_NODEADM_RUN,
};
use contract::{ConsoleLine, Phase};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::corpus::stage::Stage;
use crate::corpus::user_data::render;
use crate::corpus::{Case, observe};
use crate::systemctl_double::state::Store;
use crate::systemctl_double::units;

/// How long a join or a report may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks: the error of a sample.
const LOOK: Duration = Duration::from_millis(4);

/// How long a node took from its start, in ms.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Until its Node was there.
    pub registered: f64,
    /// Until that was Ready: the network's pod and its delays, the same on both sides, come between.
    pub ready: f64,
}

/// One join with the agent.
#[derive(Clone, Debug)]
pub struct Sample {
    /// How long it took.
    pub way: Way,
    /// The agent's peak memory by then, in MiB.
    pub rss: f64,
    /// Processor time of the agent and of the helpers that have ended, in ms.
    pub cpu: f64,
    /// From its start until it lets kubelet start, without nodeadm's config phase, in ms: what the
    /// gates cost, by the agent's own report.
    pub gates: f64,
    /// What each phase took, in ms, by the agent's own report.
    pub phases: Vec<(Phase, u64)>,
}

/// How soon a fault is named, in ms from the agent's start.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// On the console.
    pub console: f64,
    /// In the file.
    pub file: f64,
    /// In the log.
    pub journal: f64,
}

/// A node that joins over and over.
#[derive(Debug)]
pub struct Node<'a> {
    pub(super) stage: &'a Stage,
    pub(super) case: Case,
    pub(super) root: PathBuf,
    pub(super) name: String,
    agent: PathBuf,
    rounds: u32,
}

impl<'a> Node<'a> {
    /// Launches the node, lets it join once by itself, and ends that join.
    ///
    /// # Errors
    /// When it does not become Ready.
    pub async fn launch(stage: &'a Stage, agent: &Path) -> anyhow::Result<Self> {
        let case: Case = serde_yaml::from_str(
            "{case: bench, about: The node that is measured., type: p5.48xlarge}",
        )?;
        let rendered = render(&stage.base, &case, &|text: &str| text.to_owned());
        let instance = stage.launch(&case, &rendered).await?;
        let root = stage.directory.node_root(&instance);
        let deadline = Instant::now() + PATIENCE;
        while !report(&root).is_some_and(|report| report.outcome == JoinOutcome::Ready) {
            if Instant::now() > deadline {
                bail!("the node that is measured does not become Ready: `{}`", root.display());
            }
            sleep(Duration::from_millis(200)).await;
        }
        let name = report(&root).map(|report| report.instance.name).unwrap_or_default();
        // The watch goes on, as on every node; the join's own process makes place for ours.
        let unit = units::find(&root, UNIT_JOIN).context("the node has no join")?;
        let main = Store::of(&root).load(unit).main.context("the join does not run")?;
        main.signal(Signal::SIGTERM);
        Ok(Self { stage, case, root, name, agent: agent.to_owned(), rounds: 0 })
    }

    /// As after a boot: nothing configured, nothing admitted, kubelet and nodeadm down.
    async fn reset(&mut self) -> anyhow::Result<String> {
        for unit in [UNIT_NODEADM_CONFIG, UNIT_NODEADM_RUN, UNIT_KUBELET] {
            self.systemctl(&["stop", unit]).await?;
        }
        for path in [
            "run/rollcall-gate",
            "run/rollcall-nodeadm",
            "run/rollcall",
            "run/eks",
            "var/lib/rollcall",
            "var/lib/kubelet/kubeconfig",
            "etc/eks/kubelet/environment",
            "etc/kubernetes",
            "etc/cni/net.d/10-aws.conflist",
        ] {
            let path = self.root.join(path);
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            crate::directory::ignore_missing(removed)?;
        }
        self.rounds += 1;
        let boot = format!("00000000-0000-4000-8000-{:012}", self.rounds);
        fs::write(self.root.join("proc/sys/kernel/random/boot_id"), format!("{boot}\n"))?;
        fs::write(self.root.join("dev/console"), "")?;
        Ok(boot)
    }

    async fn systemctl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        observe::systemctl(&self.root, arguments).await
    }

    /// What nodeadm and kubelet need by themselves.
    ///
    /// # Errors
    /// When it does not become Ready.
    pub async fn without_agent(&mut self) -> anyhow::Result<Way> {
        let boot = self.reset().await?;
        let began = Instant::now();
        self.systemctl(&["start", UNIT_NODEADM_CONFIG]).await?;
        let admitted = self.root.join(ADMITTED_PATH.trim_start_matches('/'));
        fs::create_dir_all(admitted.parent().unwrap_or(&self.root))?;
        fs::write(admitted, "")?;
        self.systemctl(&["start", UNIT_NODEADM_RUN]).await?;
        self.until_ready(&boot, began).await
    }

    /// The same with the agent.
    ///
    /// # Errors
    /// When it does not become Ready.
    pub async fn with_agent(&mut self) -> anyhow::Result<Sample> {
        let boot = self.reset().await?;
        let began = Instant::now();
        let mut agent = self.start()?;
        let ready = self.until_ready(&boot, began).await;
        let deadline = Instant::now() + PATIENCE;
        let said = |outcome| report(&self.root).is_some_and(|report| report.outcome == outcome);
        while ready.is_ok() && !said(JoinOutcome::Ready) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        let pid = agent.id().context("the agent has ended by itself")?;
        let (rss, cpu) = (peak(pid), processor_time(pid));
        end(&mut agent).await?;
        let way = ready?;
        let report = report(&self.root).context("the agent has left no report")?;
        Ok(Sample {
            way,
            rss: rss.context("the agent's memory cannot be read")?,
            cpu: cpu.context("the agent's processor time cannot be read")?,
            gates: gates(&report).context("the report lacks a phase")?,
            phases: report.phases.iter().map(|entry| (entry.phase, entry.ms)).collect(),
        })
    }

    /// How soon the agent names a fault that is there when it starts.
    ///
    /// # Errors
    /// When it does not name it.
    pub async fn with_fault(&mut self, fault: &str, reason: &str) -> anyhow::Result<Named> {
        self.reset().await?;
        self.stage.fault(&self.case, fault).await?;
        let began = Instant::now();
        let mut agent = self.start()?;
        let (mut console, mut file, mut journal) = (None, None, None);
        let deadline = began + PATIENCE;
        while (console.is_none() || file.is_none() || journal.is_none())
            && Instant::now() < deadline
        {
            let now = milliseconds(began);
            let text = fs::read_to_string(self.root.join("dev/console")).unwrap_or_default();
            let line = ConsoleLine::last_in(&text);
            let on_console = line.is_some_and(|l| l.reasons.iter().any(|r| r.as_str() == reason));
            let in_file = report(&self.root)
                .is_some_and(|report| report.reasons.iter().any(|f| f.reason.as_str() == reason));
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let in_journal = log.contains(&format!("rollcall_reason=\"{reason}\""));
            let first = |seen: &mut Option<f64>, is: bool| *seen = seen.or(is.then_some(now));
            first(&mut console, on_console);
            first(&mut file, in_file);
            first(&mut journal, in_journal);
            sleep(LOOK).await;
        }
        end(&mut agent).await?;
        self.stage.fault(&self.case, "clear").await?;
        let missing = || format!("{fault} is not named {reason} on every channel");
        Ok(Named {
            console: console.with_context(missing)?,
            file: file.with_context(missing)?,
            journal: journal.with_context(missing)?,
        })
    }

    fn log(&self) -> PathBuf {
        self.stage.directory.path().join("bench.log")
    }

    fn start(&self) -> anyhow::Result<Child> {
        let log = fs::File::create(self.log())?;
        let environment = Store::of(&self.root).environment();
        let ours = environment.into_iter().filter(|(key, _)| key.starts_with("AWS_"));
        let child = Command::new(&self.agent)
            .arg("join")
            .arg("--root")
            .arg(&self.root)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(ours)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        child.context("could not start the agent")
    }

    /// Waits until the Node is Ready in this boot; tells when that was and when it was registered.
    async fn until_ready(&self, boot: &str, began: Instant) -> anyhow::Result<Way> {
        let deadline = Instant::now() + PATIENCE;
        let mut registered = None;
        while Instant::now() < deadline {
            if let Some(node) = self.stage.node(&self.name).await
                && node["status"]["nodeInfo"]["bootID"] == boot
            {
                let registered = *registered.get_or_insert(milliseconds(began));
                let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
                if conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
                    return Ok(Way { registered, ready: milliseconds(began) });
                }
            }
            sleep(LOOK).await;
        }
        bail!("the Node `{}` does not become Ready", self.name)
    }
}

/// Ends the agent at once.
async fn end(agent: &mut Child) -> anyhow::Result<()> {
    timeout(PATIENCE, agent.kill()).await.context("the agent does not die")??;
    Ok(())
}

fn report(root: &Path) -> Option<JoinReport> {
    let bytes = fs::read(root.join(REPORT_PATH.trim_start_matches('/'))).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// What lies before kubelet and is not nodeadm's.
fn gates(report: &JoinReport) -> Option<f64> {
    let phase = |wanted| report.phases.iter().find(|entry| entry.phase == wanted);
    let at = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let began = at(&report.started)?;
    let until = at(&phase(Phase::Register)?.started_at)?;
    let before = until.duration_since(began).as_secs_f64() * 1000.0;
    Some(before - phase(Phase::Bootstrap)?.ms as f64)
}

/// Processor time of a process and of its children that have ended, in ms.
fn processor_time(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // utime, stime, cutime and cstime, in ticks of 10 ms: fields 14 to 17, of which two are gone.
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Some(ticks * 10.0)
}

/// The most memory that a process has had, in MiB.
fn peak(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}
