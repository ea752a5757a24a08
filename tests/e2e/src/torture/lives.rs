//! Lives of one fleet: undisturbed, or with a blow on the way up and another on the way down.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use contract::ExitCode;
use lab::aws::{Credentials, Emulator};
use tokio::process::Command;
use tokio::time::timeout;

use crate::programs::Finished;
use crate::torture::account::Account;
use crate::torture::calls::{Call, KUBERNETES, of_control};
use crate::torture::{Blow, Target};
use crate::world::World;

/// No run takes longer unless something is broken.
const LIMIT: Duration = Duration::from_secs(240);

/// AWS's durations are shortened to next to nothing.
pub const SPEED: f64 = 0.0002;

/// One system node and a pool without one: every kind of call, and as little as can be to boot.
const FLEET: &str = "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\n\
    region: us-east-1\nkubernetes: \"1.34\"\nagent: {publish: true}\n\
    network: {cidr: 10.7.0.0/16, zones: 2, nat: one}\ntags: {cost-center: research}\npools:\n  \
    - {name: system, class: system, instanceType: m6i.large, size: {min: 1, desired: 1, max: 1}}\n  \
    - {name: gpu, class: gpu, instanceType: g5.12xlarge, size: {min: 0, desired: 0, max: 1}}\n";

/// A double of the agent that proves nothing: it lets kubelet in at once. What is tried here is
/// `control` alone, and every life boots a node.
const AGENT_DOUBLE: &str = "#!/bin/sh\n[ \"$1\" = join ] || exec sleep infinity\n\
    mkdir -p \"$3/run/rollcall-gate\" && : >\"$3/run/rollcall-gate/admitted\"\n\
    for phase in config run; do\n  \
    \"$3/usr/bin/systemctl\" start \"rollcall-nodeadm@$phase.service\" || exit 1\ndone\n\
    exec sleep infinity\n";

/// A lab, and a fleet file.
#[derive(Debug)]
pub struct Stage {
    /// The lab.
    pub world: World,
    /// Its account.
    pub account: Account,
    /// The fleet file.
    pub fleet: PathBuf,
    /// The tarball with the agent's double.
    pub tarball: PathBuf,
}

/// An undisturbed life, which the others are compared with: in any lab, for things go by their names.
#[derive(Clone, Debug)]
pub struct Undisturbed {
    /// The calls of `up`.
    pub up_calls: Vec<Call>,
    /// The calls of `down`.
    pub down_calls: Vec<Call>,
    empty: Vec<String>,
    built: Vec<String>,
}

/// How a life went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Both blows struck.
    Struck,
    /// A run did not come by the call: there are reads whose number is the clock's.
    Missed,
}

impl Stage {
    /// Brings up a lab in `dir`.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn open(dir: &Path) -> anyhow::Result<Self> {
        Self::open_at(dir, SPEED).await
    }

    /// Brings up a lab in `dir` whose AWS takes `speed` times as long as the real one.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn open_at(dir: &Path, speed: f64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("could not make `{}`", dir.display()))?;
        let fleet = dir.join("fleet.yaml");
        std::fs::write(&fleet, FLEET).context("could not write the fleet file")?;
        let tarball = pack(dir).await?;
        let speed = speed.to_string();
        let gear = ["--kubernetes", "standin", "--nodes", "process", "--speed", &speed];
        let world = World::up(&dir.join("lab"), &gear).await?;
        let endpoint = world.programs.env.iter().find(|(key, _)| key == "AWS_ENDPOINT_URL");
        let account = Account::at(&endpoint.context("the lab names no endpoint")?.1);
        Ok(Self { world, account, fleet, tarball })
    }

    /// The emulator, called as the operator.
    ///
    /// # Errors
    /// When the lab names no endpoint or no credentials.
    pub fn operator(&self) -> anyhow::Result<Emulator> {
        let variable = |name: &str| {
            let found = self.world.programs.env.iter().find(|(key, _)| key == name);
            found
                .map(|(_, value)| value.clone())
                .with_context(|| format!("the lab sets no `{name}`"))
        };
        let operator = Credentials {
            access_key_id: variable("AWS_ACCESS_KEY_ID")?,
            secret_access_key: variable("AWS_SECRET_ACCESS_KEY")?,
            session_token: None,
        };
        Ok(Emulator::new(variable("AWS_ENDPOINT_URL")?, variable("AWS_REGION")?, operator))
    }

    /// Lives undisturbed.
    ///
    /// # Errors
    /// When anything of it does not succeed.
    pub async fn undisturbed(&self) -> anyhow::Result<Undisturbed> {
        let empty = self.account.holds().await?;
        let begin = self.account.calls_so_far().await?;
        self.run(Way::Up).await?.expect(ExitCode::Success).context("undisturbed")?;
        let up_calls = of_control(&self.account.calls_since(begin).await?);
        ensure!(!up_calls.is_empty(), "the journal is silent");
        let built = self.settled().await?;
        let second = self.account.calls_so_far().await?;
        self.run(Way::Up).await?.expect(ExitCode::Success).context("a second time")?;
        let again = of_control(&self.account.calls_since(second).await?);
        let changing: Vec<&Call> = again.iter().filter(|call| !call.is_read()).collect();
        ensure!(changing.is_empty(), "a second `up` changes something: {changing:?}");
        let begin = self.account.calls_so_far().await?;
        self.run(Way::Down).await?.expect(ExitCode::Success).context("undisturbed")?;
        let down_calls = of_control(&self.account.calls_since(begin).await?);
        self.account.comes_to(&empty).await.context("after an undisturbed `down`")?;
        Ok(Undisturbed { up_calls, down_calls, empty, built })
    }

    /// What the account holds once nothing moves any more.
    async fn settled(&self) -> anyhow::Result<Vec<String>> {
        let mut last = self.account.holds().await?;
        let what = "the account comes to rest";
        crate::suite::poll::until(Duration::from_secs(30), what, async || {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = self.account.holds().await?;
            let moving = now.iter().any(|line| line.contains("ING ") || line.contains("pending"));
            Ok((std::mem::replace(&mut last, now.clone()) == now && !moving).then_some(now))
        })
        .await
    }

    /// One life: `up` with its blow, `up`, compared; `down` with its blow, `down`, compared.
    ///
    /// # Errors
    /// What did not converge.
    pub async fn live(
        &self,
        model: &Undisturbed,
        up: Option<&Target>,
        down: Option<&Target>,
    ) -> anyhow::Result<Life> {
        let mut struck = true;
        if let Some(target) = up {
            struck &= self.strike(Way::Up, target).await.with_context(|| said(target))?;
        }
        let ended = self.run(Way::Up).await?.expect(ExitCode::Success);
        ended.with_context(|| format!("`up` after {}", named(up)))?;
        let as_built = self.account.comes_to(&model.built).await;
        as_built.with_context(|| format!("after `up` after {}", named(up)))?;
        if up.is_some_and(|(_, call)| call.service == KUBERNETES) {
            self.objects_are_as_asked().await.with_context(|| named(up))?;
        }
        if let Some(target) = down {
            struck &= self.strike(Way::Down, target).await.with_context(|| said(target))?;
        }
        let ended = self.run(Way::Down).await?.expect(ExitCode::Success);
        ended.with_context(|| format!("`down` after {}", named(down)))?;
        let as_empty = self.account.comes_to(&model.empty).await;
        as_empty.with_context(|| format!("after `down` after {}", named(down)))?;
        Ok(if struck { Life::Struck } else { Life::Missed })
    }

    /// A life that ends as soon as it can, whatever has happened; what is left then.
    ///
    /// # Errors
    /// When the account cannot be emptied.
    pub async fn bury(&self, model: &Undisturbed) -> anyhow::Result<()> {
        self.account.lift().await?;
        self.run(Way::Down).await?;
        self.account.comes_to(&model.empty).await
    }

    /// What the account does not hold, the cluster does: a plan compares that.
    async fn objects_are_as_asked(&self) -> anyhow::Result<()> {
        let path =
            |path: &Path| anyhow::Ok(path.to_str().context("a path is not UTF-8")?.to_owned());
        let (fleet, tarball): (String, String) = (path(&self.fleet)?, path(&self.tarball)?);
        let args = ["plan", "-f", &fleet, "--agent-tarball", &tarball, "--detailed-exitcode"];
        self.world.control(&args).await?.expect(ExitCode::Success).map(drop)
    }

    /// Runs `control` into the blow; true when it struck.
    async fn strike(&self, way: Way, (blow, call): &Target) -> anyhow::Result<bool> {
        self.account.aim(*blow, call).await?;
        let ended = match blow {
            Blow::Kill => self.run_and_kill(way).await,
            // The SDK asks again; whatever it makes of that, the next run must come through.
            Blow::LoseAnswer => self.run(way).await.map(drop),
        };
        let struck = self.account.lift().await?;
        ended.map(|()| struck)
    }

    async fn run_and_kill(&self, way: Way) -> anyhow::Result<()> {
        let mut child = self.command(way).spawn().context("could not start `control`")?;
        let held = async {
            while !self.account.holds_a_call().await? {}
            anyhow::Ok(())
        };
        tokio::select! {
            held = timeout(LIMIT, held) => held.context("neither held nor ended")??,
            ended = child.wait() => {
                ended.context("could not wait for `control`")?;
                return Ok(());
            }
        }
        child.kill().await.context("could not kill `control`")
    }

    /// Where the last run's words are.
    fn said(&self) -> PathBuf {
        self.fleet.with_file_name("control.log")
    }

    fn command(&self, way: Way) -> Command {
        let mut command = Command::new(self.world.programs.bin.join("control"));
        match way {
            Way::Up => command.arg("up").arg("-f").arg(&self.fleet).arg("--yes"),
            Way::Down => command.args(["down", "--yes"]),
        };
        if way == Way::Up {
            command.arg("--agent-tarball").arg(&self.tarball);
        }
        command
            .envs(self.world.programs.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs `control` to its end.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn run(&self, way: Way) -> anyhow::Result<Finished> {
        self.run_within(way, LIMIT).await
    }

    /// Runs `control` to its end, which comes within a limit.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn run_within(&self, way: Way, limit: Duration) -> anyhow::Result<Finished> {
        let said = std::fs::File::create(self.said()).context("could not make a log")?;
        let mut command = self.command(way);
        let running = command.stderr(said).spawn().context("could not start `control`")?;
        let Ok(ended) = timeout(limit, running.wait_with_output()).await else {
            let said = std::fs::read_to_string(self.said()).unwrap_or_default();
            bail!("`control {way:?}` has not ended after {} s:\n{said}", limit.as_secs())
        };
        let ended = ended.context("could not wait for `control`")?;
        Ok(Finished {
            code: ended.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: std::fs::read_to_string(self.said()).context("could not read the log")?,
        })
    }
}

/// The way of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `control up`.
    Up,
    /// `control down`.
    Down,
}

fn said(target: &Target) -> String {
    format!("{:?} at {}", target.0, target.1)
}

fn named(target: Option<&Target>) -> String {
    target.map_or_else(|| "nothing".to_owned(), said)
}

/// Packs the agent's double as the agent is packed.
async fn pack(dir: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let (tarball, stage) = (dir.join("agent-double.tar.gz"), dir.join("agent-double"));
    let bin = stage.join("usr/bin");
    let what = "could not pack the agent's double";
    std::fs::create_dir_all(&bin).context(what)?;
    std::fs::write(bin.join("rollcall-agent"), AGENT_DOUBLE).context(what)?;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(bin.join("rollcall-agent"), mode).context(what)?;
    // The same bytes in every lab: the tarball goes by its checksum.
    let mut packing = Command::new("tar");
    packing.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
    packing.arg("-C").arg(&stage).arg("-czf").arg(&tarball).arg(".");
    ensure!(packing.status().await.context(what)?.success(), what);
    Ok(tarball)
}
