//! One process node's life: built from the image, booted from its user data, ended with its
//! instance.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::ErrorChain;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::console::Console;
use super::image::{self, Programs};
use super::intake::{self, AgentSource, Intake};
use super::loopback::{IMDS_PORT, KUBELET_PORT};
use super::machine_node::{MachineView, Power};
use super::{install, services};
use crate::aws::{Emulator, Instance};
use crate::directory::{DirectoryError, LabDirectory, write_atomically};
use crate::faults::Fault;
use crate::faults::effects::{Undo, World};
use crate::faults::hardware::Hardware;
use crate::faults::local::Local;
use crate::imds::{Imds, Tasks};
use crate::kubernetes::dra_driver_double;
use crate::kubernetes::kubelet_standin::Knobs;
use crate::nodes::machine::{Ground, MachineError};
use crate::processes;
use crate::systemctl_double::state::{Exit, Store};
use crate::systemctl_double::units;

/// What every node of a lab shares.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The lab's directory.
    pub directory: LabDirectory,
    /// AWS.
    pub emulator: Emulator,
    /// AWS and Kubernetes, for faults.
    pub world: World,
    /// The stand-ins and the driver library.
    pub programs: Programs,
    /// What the image has baked in of the agent, unpacked; none where it has nothing.
    pub baked: Option<PathBuf>,
    /// What machines stand on; without it nodes are processes.
    pub ground: Option<Arc<Ground>>,
}

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Its files are being made.
    Booting,
    /// The agent's services are being run.
    Running,
    /// Nothing was started; the console says why.
    Stuck,
    /// The machine has switched itself off.
    Off,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its instance.
    pub instance: Instance,
    /// Its loopback address.
    pub address: Ipv4Addr,
    pub(super) root: PathBuf,
    pub(super) hardware: Hardware,
    console: Console,
    pub(super) imds: Arc<Imds>,
    /// Whether the node's GPUs are offered by DRA.
    by_dra: bool,
    /// How many of EC2's reboots have been acted on.
    pub(super) reboots: AtomicU32,
    /// Whether EC2 has stopped the instance, as far as it has been acted on.
    pub(super) stopped: AtomicBool,
    live: Mutex<Live>,
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) stage: Stage,
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) imds: Option<Tasks>,
    /// Of a machine node.
    pub(super) power: Option<Power>,
    pub(super) faults: Vec<Fault>,
    undo: Vec<(Fault, Undo)>,
    /// The instance is gone: nothing may be started any more.
    pub(super) ended: bool,
}

/// Why a node could not be booted.
#[derive(Debug, thiserror::Error)]
pub(super) enum BootError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("could not write the node's files")]
    Files(#[from] std::io::Error),
    #[error("{0}")]
    Intake(#[from] intake::IntakeError),
    #[error(transparent)]
    Install(#[from] install::InstallError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("the image has no agent and the user data names none (install: {{url, sha256}})")]
    NoAgent,
}

impl Node {
    /// A node for an instance. Nothing of it exists yet.
    #[must_use]
    pub fn new(around: &Surroundings, instance: Instance, address: Ipv4Addr) -> Arc<Self> {
        let root = around.directory.node_root(&instance.instance_id);
        let given = instance.user_data.as_deref().filter(|text| !text.trim().is_empty());
        // What is not base64 EC2 would not have taken; IMDS then has none, and intake says why.
        let user_data = given.and_then(|text| crate::user_data::from_base64(text).ok());
        let library = around.programs.nvml.as_deref();
        let hardware = Hardware::of(&root, &instance.instance_type, &instance.instance_id, library);
        Arc::new(Self {
            by_dra: user_data.as_deref().is_some_and(intake::offers_by_dra),
            hardware: if around.ground.is_some() { hardware.of_machine() } else { hardware },
            console: Console::of(&root, &instance.instance_id),
            imds: Imds::new(instance.clone(), user_data),
            reboots: AtomicU32::new(instance.reboots),
            stopped: AtomicBool::new(false),
            live: Mutex::new(Live {
                stage: Stage::Booting,
                tasks: Vec::new(),
                imds: None,
                power: None,
                faults: Vec::new(),
                undo: Vec::new(),
                ended: false,
            }),
            instance,
            address,
            root,
        })
    }

    /// Boots the node with these faults; `imds` listens on its address already.
    pub async fn boot(
        self: &Arc<Self>,
        around: &Surroundings,
        imds: TcpListener,
        faults: Vec<Fault>,
    ) {
        let id = &self.instance.instance_id;
        match self.bring_up(around, imds, faults).await {
            Ok(()) => {
                tracing::info!(instance = %id, address = %self.address, "node runs");
                self.live().stage = Stage::Running;
            }
            Err(error) => {
                tracing::warn!(instance = %id, error = %ErrorChain(&error), "node is stuck");
                self.explain(&error);
                self.live().stage = Stage::Stuck;
            }
        }
    }

    async fn bring_up(
        self: &Arc<Self>,
        around: &Surroundings,
        imds: TcpListener,
        faults: Vec<Fault>,
    ) -> Result<(), BootError> {
        if let Some(ground) = &around.ground {
            return self.power_on(around, ground, imds, faults).await;
        }
        self.build(around)?;
        // Those of the node's own files come when the files are all there.
        let (local, other): (Vec<_>, Vec<_>) =
            faults.into_iter().partition(|fault| matches!(fault, Fault::Local(_)));
        self.lay(around, other).await;
        let tasks = self.imds.start(imds, around.emulator.clone());
        self.live().imds = Some(tasks);
        self.console
            .print("[    0.000000] Linux version 6.12.53-69.119.amzn2023.x86_64 (process node)");
        let agent = match self.take_user_data() {
            Ok(intake) => intake.agent,
            // cloud-init complains and goes on; an agent that the image brings starts all the same.
            Err(error @ BootError::Intake(_)) if around.baked.is_some() => {
                self.explain(&error);
                AgentSource::Baked
            }
            Err(error) => return Err(error),
        };
        self.install(around, &agent).await?;
        self.lay(around, local).await;
        self.end_cloud_init()?;
        self.start_services();
        Ok(())
    }

    /// The agent's two services, each with its keeper.
    pub(super) fn start_services(&self) {
        let faults = self.live().faults.clone();
        for service in services::of_agent(&self.root, self.address, &faults) {
            let kept = services::keep(self.root.clone(), service, self.console.clone());
            let mut live = self.live();
            if !live.ended {
                live.tasks.push(tokio::spawn(kept));
            }
        }
    }

    fn build(&self, around: &Surroundings) -> Result<(), BootError> {
        image::write(&self.root, &self.instance, &around.programs)?;
        self.hardware.set(&[])?;
        self.hardware.boot(&[])?;
        self.begin_boot(around)
    }

    /// What PID 1 knows at the beginning of a boot.
    pub(super) fn begin_boot(&self, around: &Surroundings) -> Result<(), BootError> {
        let store = Store::of(&self.root);
        store.mark_boot()?;
        let environment = environment(&self.root, self.address, &around.emulator);
        write_atomically(&store.environment_file(), environment.as_bytes(), 0o644)?;
        for unit in units::active_at_boot(&self.root) {
            let now = store.now();
            store.update(unit, |state| {
                *state = if unit.remains() {
                    state.starting(now).ended(Exit::Status(0), true, now)
                } else {
                    state.starting(now).running(None, now)
                };
            })?;
        }
        Ok(())
    }

    /// What cloud-init does: files, and its last stage is done. Scripts are not run.
    fn take_user_data(&self) -> Result<Intake, BootError> {
        let text = self.instance.user_data.as_deref().unwrap_or_default();
        let raw = crate::user_data::from_base64(text).map_err(intake::IntakeError::Broken)?;
        let intake = intake::take(&raw)?;
        for file in &intake.files {
            write_atomically(&self.root.join(&file.path), &file.content, file.mode)?;
        }
        Ok(intake)
    }

    /// cloud-init is done, unless a fault holds one of its stages.
    pub(super) fn end_cloud_init(&self) -> Result<(), BootError> {
        let store = Store::of(&self.root);
        for name in ["cloud-init.service", "cloud-config.service", "cloud-final.service"] {
            if store.trouble(name).is_some() {
                continue;
            }
            if let Some(unit) = units::find(&self.root, name) {
                let now = store.now();
                store.update(unit, |state| {
                    *state = state.starting(now).ended(Exit::Status(0), true, now);
                })?;
            }
        }
        let result = br#"{"v1":{"datasource":"DataSourceEc2Local","errors":[]}}"#;
        write_atomically(&self.root.join("run/cloud-init/result.json"), result, 0o644)?;
        Ok(())
    }

    async fn install(&self, around: &Surroundings, agent: &AgentSource) -> Result<(), BootError> {
        match (agent, &around.baked) {
            (AgentSource::Fetched(wanted), _) => {
                if self.imds.credentials().is_none() {
                    // The node's first credentials may be on their way still.
                    let _ = self.imds.refresh(&around.emulator).await;
                }
                let credentials = self.imds.credentials();
                let fetched =
                    install::install(&self.root, wanted, &around.emulator, credentials.as_ref());
                Ok(fetched.await?)
            }
            (AgentSource::Baked | AgentSource::None, Some(baked)) => {
                Ok(crate::directory::link_tree(baked, &self.root)?)
            }
            (AgentSource::Baked | AgentSource::None, None) => Err(BootError::NoAgent),
        }
    }

    /// Says on the console why nothing runs, in the words of whoever would say it on a machine.
    fn explain(&self, error: &BootError) {
        let why = ErrorChain(error).to_string();
        match error {
            BootError::Install(_) | BootError::NoAgent => self.console.install_failed(&why),
            BootError::Intake(_) => self.console.print(&format!("cloud-init[1]: WARNING: {why}")),
            BootError::Directory(_) | BootError::Files(_) | BootError::Machine(_) => {
                self.console.print(&format!("lab: the node could not be built: {why}"));
            }
        }
    }

    /// Lays faults on the node, on top of those it has.
    pub(super) async fn lay(&self, around: &Surroundings, faults: Vec<Fault>) {
        for fault in faults {
            if let Err(error) = self.add_fault(around, fault.clone()).await {
                let id = &self.instance.instance_id;
                tracing::warn!(instance = %id, %fault, %error, "remembered fault not laid");
            }
        }
    }

    /// Lays one fault on the node.
    ///
    /// # Errors
    /// When the node cannot have it.
    pub async fn add_fault(
        &self,
        around: &Surroundings,
        fault: Fault,
    ) -> Result<(), crate::faults::FaultError> {
        use crate::faults::FaultError;
        let id = || self.instance.instance_id.clone();
        if fault.needs_gpus() && !self.hardware.has_gpus() {
            return Err(FaultError::NoGpus(id()));
        }
        if fault == Fault::AgentCorrupt && self.root.join(install::AGENT).exists() {
            return Err(FaultError::TooLate(id()));
        }
        if let Fault::Happening(happening) = &fault {
            return self.hardware.happen(happening).map_err(|error| self.unchanged(&error));
        }
        if self.live().faults.contains(&fault) {
            return Ok(());
        }
        let undo = around.world.lay(&fault, Some(&self.instance)).await?;
        if let Fault::Local(local) = &fault {
            local.lay(&self.root).map_err(|error| self.unchanged(&error))?;
        }
        self.hardware.announce(&fault).map_err(|error| self.unchanged(&error))?;
        let faults = {
            let mut live = self.live();
            live.faults.push(fault.clone());
            live.undo.extend(undo.map(|undo| (fault, undo)));
            live.faults.clone()
        };
        self.shape_network(around, &faults)?;
        self.set_hardware(&faults)
    }

    /// Lifts all of the node's faults.
    ///
    /// # Errors
    /// When something cannot be put back.
    pub async fn clear_faults(
        &self,
        around: &Surroundings,
    ) -> Result<(), crate::faults::FaultError> {
        let (faults, undo) = {
            let mut live = self.live();
            (std::mem::take(&mut live.faults), std::mem::take(&mut live.undo))
        };
        let mut outcome = self.shape_network(around, &[]).and(self.set_hardware(&[]));
        for fault in faults.iter().rev() {
            if let Fault::Local(local) = fault {
                outcome = outcome.and(local.lift(&self.root).map_err(|e| self.unchanged(&e)));
            }
        }
        for (_, undo) in undo {
            around.world.take_back(undo).await?;
        }
        outcome
    }

    /// Lifts one of the node's faults.
    ///
    /// # Errors
    /// When something cannot be put back.
    pub async fn lift_fault(
        &self,
        around: &Surroundings,
        fault: &Fault,
    ) -> Result<(), crate::faults::FaultError> {
        let (left, undo) = {
            let mut live = self.live();
            live.faults.retain(|known| known != fault);
            let (undo, kept) =
                std::mem::take(&mut live.undo).into_iter().partition(|(of, _)| of == fault);
            live.undo = kept;
            let undo: Vec<(Fault, Undo)> = undo;
            (live.faults.clone(), undo)
        };
        self.shape_network(around, &left)?;
        self.set_hardware(&left)?;
        if let Fault::Local(local) = fault {
            local.lift(&self.root).map_err(|error| self.unchanged(&error))?;
        }
        for (_, undo) in undo {
            around.world.take_back(undo).await?;
        }
        Ok(())
    }

    /// Makes hardware and metadata service what these faults make of them.
    fn set_hardware(&self, faults: &[Fault]) -> Result<(), crate::faults::FaultError> {
        let troubles = faults.iter().filter_map(|fault| match fault {
            Fault::Imds(trouble) => Some(trouble.clone()),
            _ => None,
        });
        self.imds.set_troubles(troubles.collect());
        let behind = faults.iter().find_map(|fault| match fault {
            Fault::ClockBehind(seconds) => Some(*seconds),
            _ => None,
        });
        self.imds.set_clock(behind.unwrap_or_default());
        self.hardware.set(faults).map_err(|error| self.unchanged(&error))
    }

    fn unchanged(&self, error: &std::io::Error) -> crate::faults::FaultError {
        crate::faults::FaultError::World {
            what: format!("change the files of {}", self.instance.instance_id),
            why: error.to_string(),
        }
    }

    /// Ends everything that runs for the node and removes it; its console stays readable, as
    /// EC2's does. Returns the processes that survived.
    pub async fn end(&self, around: &Surroundings) -> Vec<processes::ProcessId> {
        let (tasks, imds, undo) = {
            let mut live = self.live();
            live.ended = true;
            for fault in std::mem::take(&mut live.faults) {
                // What is mounted would stay when the node's files go.
                if let Fault::Local(local @ (Local::Full(_) | Local::Hung(_))) = fault {
                    let _ = local.lift(&self.root);
                }
            }
            (std::mem::take(&mut live.tasks), live.imds.take(), std::mem::take(&mut live.undo))
        };
        for (_, undo) in undo {
            // An access entry is not put back: whoever ends the node may be taking it all down.
            if !matches!(undo, Undo::AccessEntry { .. }) {
                let _ = around.world.take_back(undo).await;
            }
        }
        // The next machine with this address is to find its network whole.
        let _ = self.shape_network(around, &[]);
        let power = self.live().power.take();
        let mut left = match power {
            Some(power) => power.off().await,
            None => Vec::new(),
        };
        let family = processes::of_node(&self.root);
        let grace = Duration::from_secs(3);
        left.extend(processes::end(&family, grace).await);
        for task in tasks {
            task.abort();
        }
        // A keeper may have restarted something in between.
        left.extend(processes::end(&processes::of_node(&self.root), grace).await);
        drop(imds);
        self.remove();
        left
    }

    fn remove(&self) {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let removed = match path.file_name() {
                Some(name) if name == "dev" => remove_all_but_console(&path),
                _ if path.is_dir() => std::fs::remove_dir_all(&path),
                _ => std::fs::remove_file(&path),
            };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "not removed");
            }
        }
    }

    /// Keeps `/proc/uptime` true enough.
    pub fn tick(&self) {
        let seconds = Store::of(&self.root).now() / 10_000;
        let text = format!("{0}.{1:02} {0}.{1:02}\n", seconds / 100, seconds % 100);
        let path = self.root.join("proc/uptime");
        if path.exists()
            && let Err(error) = write_atomically(&path, text.as_bytes(), 0o644)
        {
            tracing::debug!(%error, "uptime not written");
        }
    }

    /// Whether the DRA driver's double is to offer what the device plugin offers.
    #[must_use]
    pub fn offers_twice(&self) -> bool {
        Knobs::read(&self.root).is_ok_and(|knobs| knobs.gpus_also_by_dra)
    }

    /// What the DRA driver's double offers of the node, whose Node object has this name; nothing
    /// where GPUs are offered in another way.
    #[must_use]
    pub fn resource_slice(&self, name: &str) -> Option<serde_json::Value> {
        let by_dra = self.by_dra || self.offers_twice();
        let state = by_dra.then(|| nvml_sim::State::read(&self.root)).and_then(Result::ok);
        state.map(|state| dra_driver_double::slice(name, &state))
    }

    /// What `lab status` says of the node.
    #[must_use]
    pub fn view(&self) -> NodeView {
        let live = self.live();
        let store = Store::of(&self.root);
        let pid = |name: &str| {
            let unit = units::find(&self.root, name)?;
            store.load(unit).main.map(|main| main.pid)
        };
        let machine = live.power.as_ref().map(|power| power.view(&self.instance));
        let pids = Pids {
            join: pid(contract::names::UNIT_JOIN),
            watch: pid(contract::names::UNIT_WATCH),
            kubelet: pid(contract::names::UNIT_KUBELET),
        };
        let (address, imds) = match &machine {
            Some(machine) => (machine.address, "http://169.254.169.254".to_owned()),
            None => (self.address, format!("http://{}:{IMDS_PORT}", self.address)),
        };
        NodeView {
            pool: self.instance.pool().to_owned(),
            index: self.instance.index,
            instance: self.instance.instance_id.clone(),
            instance_type: self.instance.instance_type.clone(),
            name: self.instance.private_dns_name.clone(),
            address,
            imds,
            metrics: format!("http://{address}:{}/metrics", contract::names::METRICS_PORT),
            kubelet: format!("http://{address}:{KUBELET_PORT}/healthz"),
            stage: live.stage,
            pids: machine.as_ref().map_or(pids, |machine| machine.pids),
            machine,
            faults: live.faults.iter().map(ToString::to_string).collect(),
            console: self.console.last_line().unwrap_or_default(),
            root: self.root.clone(),
        }
    }

    pub(super) fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `lab status` shows of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its pool.
    pub pool: String,
    /// Its ordinal in the pool.
    pub index: Option<u32>,
    /// Its instance id.
    pub instance: String,
    /// Its instance type.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Its private DNS name, which is its Node object's.
    pub name: String,
    /// Its address: on loopback, or a machine's own in its subnet.
    pub address: Ipv4Addr,
    /// Its IMDS, as the node itself reaches it.
    pub imds: String,
    /// Its agent's metrics.
    pub metrics: String,
    /// Its kubelet's health check.
    pub kubelet: String,
    /// How far it has come.
    pub stage: Stage,
    /// The machine, where the node is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineView>,
    /// What runs for it.
    pub pids: Pids,
    /// Faults in force.
    pub faults: Vec<String>,
    /// The console's last line.
    pub console: String,
    /// Its root directory.
    pub root: PathBuf,
}

/// The pids of a node's services, while they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// rollcall-join.
    pub join: Option<i32>,
    /// rollcall-agent.
    pub watch: Option<i32>,
    /// kubelet.
    pub kubelet: Option<i32>,
}

fn remove_all_but_console(dev: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dev)? {
        let entry = entry?;
        if entry.file_name() != "console" {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What PID 1 of this node gives to every unit.
fn environment(root: &Path, address: Ipv4Addr, emulator: &Emulator) -> String {
    format!(
        "AWS_ENDPOINT_URL={}\nAWS_REGION={}\nAWS_EC2_METADATA_SERVICE_ENDPOINT=http://{address}:{IMDS_PORT}\n\
         ROLLCALL_NODE_ROOT={}\nROLLCALL_NODE_ADDRESS={address}\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n",
        emulator.endpoint(),
        emulator.region(),
        root.display(),
    )
}
