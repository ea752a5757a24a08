//! The supervisor's life: claim, start, serve, end.

use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use contract::ErrorChain;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, setsid};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::api::Api;
use super::emulator::{self, StartError};
use super::record::{Options, Phase, Record};
use crate::aws::Emulator;
use crate::directory::{DirectoryError, LabDirectory, link_or_copy, write_atomically};
use crate::faults::effects::World;
use crate::gear::{KubernetesGear, NodesGear};
use crate::instances::image::Programs;
use crate::instances::install;
use crate::instances::loopback::{Addresses, AddressesExhausted};
use crate::instances::node::Surroundings;
use crate::instances::runner::{Runner, Watching};
use crate::kubernetes::ControlPlane;
use crate::kubernetes::real::{self, Parts, RealConfig};
use crate::kubernetes::standin::{self, StandinConfig};
use crate::nodes::machine::{self, Ground, MachineError};
use crate::processes::{self, ProcessId, own_program};

/// How often orphans that have ended are waited for.
const REAP: Duration = Duration::from_secs(1);

/// Why a lab does not come up.
#[derive(Debug, Error)]
pub enum SupervisorError {
    /// Something in its directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Another lab is in the directory.
    #[error("another lab holds `{0}`: end it with lab down, or use another --dir")]
    Held(String),
    /// No address.
    #[error(transparent)]
    Addresses(#[from] AddressesExhausted),
    /// AWS.
    #[error(transparent)]
    Emulator(#[from] StartError),
    /// Kubernetes.
    #[error("Kubernetes did not come up")]
    Kubernetes(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Machine nodes.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The agent that the images have baked in.
    #[error(transparent)]
    Baked(#[from] install::InstallError),
    /// The operating system.
    #[error("could not {0}")]
    System(&'static str, #[source] std::io::Error),
}

/// Runs a lab in `directory` until it is told to end.
///
/// # Errors
/// When it cannot come up; the reason is in the record as well.
pub async fn run(directory: LabDirectory, options: Options) -> Result<(), SupervisorError> {
    // A session of its own: the terminal that `lab up` was typed in may close.
    let _ = setsid();
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|e| SupervisorError::System("become a subreaper", e.into()))?;
    let mut ends = Ends::listen()?;
    let _lock = hold(&directory)?;
    let pid = std::process::id().cast_signed();
    let mut record = Record::new(pid, options);
    record.write(&directory)?;
    write_atomically(&directory.pid_file(), format!("{pid}\n").as_bytes(), 0o644)?;
    let started = tokio::select! {
        started = Lab::start(&directory, &mut record) => started,
        () = ends.wait() => return Ok(()),
    };
    match started {
        Ok(lab) => {
            record.phase = Phase::Serving;
            write_atomically(&directory.env(), record.env().as_bytes(), 0o600)?;
            record.write(&directory)?;
            tracing::info!(
                endpoint = record.endpoint,
                kubernetes = record.kubernetes,
                "lab serves"
            );
            lab.until(ends.wait(), directory.record()).await;
            Ok(())
        }
        Err(error) => {
            record.phase = Phase::Failed;
            record.error = Some(ErrorChain(&error).to_string());
            record.write(&directory)?;
            end_family().await;
            Err(error)
        }
    }
}

/// One lab per directory, even when two are started at once.
fn hold(directory: &LabDirectory) -> Result<Flock<File>, SupervisorError> {
    let path = directory.lock();
    let file = File::create(&path).map_err(DirectoryError::of("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| SupervisorError::Held(directory.path().display().to_string()))
}

/// The signals that end a lab.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn listen() -> Result<Self, SupervisorError> {
        let listen =
            |kind| signal(kind).map_err(|e| SupervisorError::System("listen for signals", e));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Record {
    fn new(pid: i32, options: Options) -> Self {
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        Self {
            phase: Phase::Starting,
            error: None,
            supervisor: ProcessId::of(pid).unwrap_or(ProcessId { pid, started: 0 }),
            since: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            options,
            api: String::new(),
            token: uuid.trim().to_owned(),
            endpoint: String::new(),
            region: String::new(),
            operator: None,
            kubernetes: String::new(),
        }
    }
}

/// A lab that serves.
struct Lab {
    runner: std::sync::Arc<Runner>,
    watching: Watching,
    plane: ControlPlane,
    emulator: emulator::Process,
    ground: Option<std::sync::Arc<Ground>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Lab {
    async fn start(directory: &LabDirectory, record: &mut Record) -> Result<Self, SupervisorError> {
        let programs = install_programs(directory, &record.options)?;
        let baked = bake(directory, &record.options)?;
        let (addresses, claim) = Addresses::claim().await?;
        let claimed = claim.local_addr().map_err(|e| SupervisorError::System("listen", e))?;
        let mut ground = match record.options.nodes {
            NodesGear::Machine => Some(Ground::lay(directory.path(), &programs.lab).await?),
            NodesGear::Auto | NodesGear::Process => None,
        };
        let (process, emulator, plane) = start_world(directory, &record.options).await?;
        if let Some(ground) = &mut ground {
            ground.relay(emulator.endpoint()).await?;
        }
        let ground = ground.map(std::sync::Arc::new);
        record.api = format!("http://{claimed}");
        record.endpoint = emulator.endpoint().to_owned();
        record.region = emulator.region().to_owned();
        record.operator = Some(emulator.operator().clone());
        record.kubernetes = plane.endpoint().to_owned();
        let around = Surroundings {
            directory: directory.clone(),
            world: World { emulator: emulator.clone(), plane: plane.clone() },
            emulator,
            programs,
            baked,
            ground: ground.clone(),
        };
        let runner = Runner::new(around, addresses);
        let api = Api {
            record: record.clone(),
            directory: directory.path().display().to_string(),
            emulator: process.pid(),
            runner: std::sync::Arc::clone(&runner),
        };
        let serve = async move {
            if let Err(error) = axum::serve(claim, api.router()).await {
                tracing::error!(%error, "the lab's api ended");
            }
        };
        let tasks = vec![tokio::spawn(serve), tokio::spawn(reap_orphans())];
        Ok(Self { watching: runner.start(), runner, plane, emulator: process, ground, tasks })
    }

    /// Serves until `end`, or until the emulator or the lab's record has gone, then ends everything:
    /// without a record, nobody could end it any more.
    async fn until(mut self, end: impl Future<Output = ()>, record: PathBuf) {
        tokio::select! {
            () = end => tracing::info!("asked to end"),
            () = removed(record) => tracing::error!("the lab's directory has been removed: so ends the lab"),
            status = self.emulator.ended() => tracing::error!(status, "the emulator has ended: so does the lab"),
        }
        drop(self.watching);
        let mut left = self.runner.end_all().await;
        self.plane.stop().await;
        left.extend(self.emulator.end().await);
        if let Some(ground) = self.ground {
            ground.clear();
        }
        for task in self.tasks {
            task.abort();
        }
        left.extend(end_family().await);
        for id in left {
            tracing::error!(pid = id.pid, command = id.command_line(), "survived the lab");
        }
        tracing::info!("ended");
    }
}

async fn start_world(
    directory: &LabDirectory,
    options: &Options,
) -> Result<(emulator::Process, Emulator, ControlPlane), SupervisorError> {
    let host = match options.nodes {
        NodesGear::Machine => machine::ENDPOINT,
        NodesGear::Auto | NodesGear::Process => std::net::Ipv4Addr::LOCALHOST,
    };
    let listen = (host, 0).into();
    let (dir, region) = (directory.kubernetes(), "us-east-1".to_owned());
    if options.kubernetes == KubernetesGear::Real {
        let parts = Parts::find().map_err(kubernetes_failed)?;
        let config = RealConfig { listen, dir, region, parts };
        let bound = real::bind(config).await.map_err(kubernetes_failed)?;
        let (process, emulator) =
            emulator::start(directory, options, bound.endpoint(), bound.ca_path()).await?;
        let handle = bound.serve(emulator.endpoint()).await.map_err(kubernetes_failed)?;
        return Ok((process, emulator, ControlPlane::Real(handle)));
    }
    let config = StandinConfig { listen, dir, region };
    let bound = standin::bind(config).await.map_err(kubernetes_failed)?;
    let (process, emulator) =
        emulator::start(directory, options, bound.endpoint(), bound.ca_path()).await?;
    let handle = bound.serve(emulator.endpoint()).await.map_err(kubernetes_failed)?;
    Ok((process, emulator, ControlPlane::Standin(handle)))
}

fn kubernetes_failed(error: impl std::error::Error + Send + Sync + 'static) -> SupervisorError {
    SupervisorError::Kubernetes(Box::new(error))
}

/// The lab binary and the driver library, beside the nodes so that they can be linked into them,
/// and apart from the build.
fn install_programs(
    directory: &LabDirectory,
    options: &Options,
) -> Result<Programs, DirectoryError> {
    let own = std::fs::read_link(own_program()).unwrap_or_else(|_| own_program());
    let lab = directory.programs().join("lab");
    if own != lab {
        link_or_copy(&own, &lab)?;
    }
    let nvml = match &options.nvml {
        Some(built) => {
            let installed: PathBuf = directory.programs().join("libnvml_sim.so");
            link_or_copy(built, &installed)?;
            Some(installed)
        }
        None => None,
    };
    Ok(Programs { lab, nvml })
}

/// Unpacks the agent that the images have baked in, once for all nodes.
fn bake(directory: &LabDirectory, options: &Options) -> Result<Option<PathBuf>, SupervisorError> {
    let Some(tarball) = &options.baked_agent else { return Ok(None) };
    let content = std::fs::read(tarball)
        .map_err(|e| SupervisorError::System("read the agent's tarball", e))?;
    let image = directory.image();
    std::fs::create_dir_all(&image)
        .map_err(|e| SupervisorError::System("make the image's directory", e))?;
    install::unpack(&image, &content, &tarball.to_string_lossy())?;
    Ok(Some(image))
}

/// Orphans of the nodes become the supervisor's children; those that have ended are waited for.
async fn reap_orphans() {
    let own = std::process::id().cast_signed();
    let mut seen: Vec<i32> = Vec::new();
    loop {
        tokio::time::sleep(REAP).await;
        let zombies = processes::zombies_of(own);
        // A child of tokio's is waited for by tokio within the moment: only what is still a zombie
        // a second later is an orphan.
        for pid in zombies.iter().filter(|pid| seen.contains(pid)) {
            let _ = waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
        }
        seen = zombies;
    }
}

/// Waits until a file is gone.
async fn removed(path: PathBuf) {
    while path.exists() {
        tokio::time::sleep(REAP).await;
    }
}

/// Ends whatever still descends from the supervisor.
async fn end_family() -> Vec<ProcessId> {
    let own = std::process::id().cast_signed();
    let left = processes::end(&processes::descendants(own), Duration::from_secs(2)).await;
    for pid in processes::zombies_of(own) {
        let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    }
    left
}
