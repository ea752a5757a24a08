//! A machine node's life: powered on, restarted from inside or by EC2, powered off.
//!
//! A machine boots by itself: it gets a disk, a network, IMDS and power, and does the rest.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::ErrorChain;
use contract::names::{UNIT_JOIN, UNIT_KUBELET, UNIT_WATCH};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::node::{Node, Pids, Stage, Surroundings};
use crate::aws::Instance;
use crate::faults::network::{self, NetworkFault};
use crate::faults::{Fault, FaultError};
use crate::nodes::machine::{self, Ending, Ground, Machine, MachineError, Wire, init_of, pid_of};
use crate::processes::ProcessId;

/// How long a machine may take to restart or to shut down before its power is cut. EC2 waits 4 minutes.
const REBOOT_WITHIN: Duration = Duration::from_secs(60);

/// What a machine is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// EC2 restarts the instance.
    Reboot,
    /// EC2 stops it: it shuts down and keeps its disk.
    Stop,
    /// EC2 terminates it.
    Off,
}

/// The boot that a machine is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Boot {
    id: String,
    count: u32,
    keeper: Option<i32>,
}

/// What `lab status` shows of a machine, and `lab exec` enters it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineView {
    /// The pid of its PID 1 outside; none while it is off.
    pub init: Option<i32>,
    /// Its address in its subnet.
    #[serde(skip)]
    pub address: Ipv4Addr,
    /// The id of the boot that it is in.
    pub boot: String,
    /// How often it has booted.
    pub boots: u32,
    /// Its services, by their pids outside.
    #[serde(skip)]
    pub pids: Pids,
}

/// The hand on a machine's power switch.
#[derive(Debug)]
pub(super) struct Power {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<Vec<ProcessId>>,
    boot: Arc<Mutex<Boot>>,
}

impl Power {
    /// Switches it off for good. Returns the processes that survived.
    pub(super) async fn off(self) -> Vec<ProcessId> {
        // A machine whose task has ended is off.
        let _ = self.orders.send(Order::Off).await;
        self.task.await.unwrap_or_default()
    }

    pub(super) fn view(&self, instance: &Instance) -> MachineView {
        let boot = self.boot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pid = |unit| pid_of(&instance.instance_id, unit);
        MachineView {
            init: boot.keeper.and_then(init_of).map(|id| id.pid),
            address: instance.private_ip.parse().unwrap_or(Ipv4Addr::UNSPECIFIED),
            boot: boot.id,
            boots: boot.count,
            pids: Pids { join: pid(UNIT_JOIN), watch: pid(UNIT_WATCH), kubelet: pid(UNIT_KUBELET) },
        }
    }
}

impl Node {
    /// Makes the machine and powers it on.
    pub(super) async fn power_on(
        self: &Arc<Self>,
        around: &Surroundings,
        ground: &Arc<Ground>,
        imds: TcpListener,
        faults: Vec<Fault>,
    ) -> Result<(), super::node::BootError> {
        std::fs::create_dir_all(self.root.join("dev"))?;
        self.hardware.set(&[])?;
        self.lay(around, faults).await;
        Machine::install(ground, &self.directory(), &self.instance)?;
        let served = imds.local_addr()?;
        self.live().imds = Some(self.imds.start(imds, around.emulator.clone()));
        let boot = Arc::new(Mutex::new(Boot::default()));
        let life = Life {
            node: Arc::clone(self),
            around: around.clone(),
            ground: Arc::clone(ground),
            imds: served,
            boot: Arc::clone(&boot),
        };
        let first = life.start()?;
        let (orders, receiver) = mpsc::channel(4);
        let task = tokio::spawn(life.run(first, receiver));
        let power = Power { orders, task, boot };
        let ended = {
            let mut live = self.live();
            live.power = Some(power);
            live.ended.then(|| live.power.take()).flatten()
        };
        if let Some(power) = ended {
            power.off().await;
        }
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        self.root.parent().unwrap_or(&self.root).to_owned()
    }

    /// Makes the machine's network as bad as its faults say, now and in later boots. A process
    /// node's network is the host's, and stays as it is.
    ///
    /// # Errors
    /// When the machine's rules cannot be set.
    pub(super) fn shape_network(
        &self,
        around: &Surroundings,
        faults: &[Fault],
    ) -> Result<(), FaultError> {
        let on_network: Vec<NetworkFault> = faults.iter().filter_map(network_fault).collect();
        let Some(ground) = &around.ground else { return Ok(()) };
        let api = around.world.plane.troubles();
        ground.shape(&self.instance, &on_network, api.as_ref()).map_err(|error| FaultError::World {
            what: format!("change the network of {}", self.instance.instance_id),
            why: ErrorChain(&error).to_string(),
        })
    }

    /// Restarts the instance when EC2 has been asked to since the last time.
    pub(super) fn follow_reboots(self: &Arc<Self>, around: &Surroundings, asked: u32) {
        if self.reboots.swap(asked, Ordering::Relaxed) == asked {
            return;
        }
        if around.ground.is_some() {
            self.reboot();
        } else {
            let (node, around) = (Arc::clone(self), around.clone());
            tokio::spawn(async move { node.restart(&around).await });
        }
    }

    /// Switches the machine off or on as EC2 was asked to. `is_stopped`: EC2 says that it is stopped or stopping.
    pub(super) fn follow_power(&self, is_stopped: bool) {
        if self.stopped.load(Ordering::Relaxed) == is_stopped {
            return;
        }
        let orders = self.live().power.as_ref().map(|power| power.orders.clone());
        let order = if is_stopped { Order::Stop } else { Order::Reboot };
        // Not told: asked again with the next look.
        if orders.is_some_and(|orders| orders.try_send(order).is_ok()) {
            self.stopped.store(is_stopped, Ordering::Relaxed);
        }
    }

    /// Keeps the machine's disk as an image's. Nothing while it is still shutting down.
    pub(super) fn keep_disk(
        &self,
        ground: &Ground,
        image_id: &str,
    ) -> Option<Result<(), MachineError>> {
        let is_stopped = self.stopped.load(Ordering::Relaxed);
        if is_stopped && self.live().stage != Stage::Off {
            return None;
        }
        Some(machine::keep(ground, &self.directory(), image_id))
    }

    fn reboot(&self) {
        let orders = self.live().power.as_ref().map(|power| power.orders.clone());
        let id = &self.instance.instance_id;
        match orders {
            Some(orders) if orders.try_send(Order::Reboot).is_ok() => {}
            Some(_) => tracing::info!(instance = %id, "is restarting already, or off"),
            None => tracing::warn!(instance = %id, "has no power yet"),
        }
    }
}

/// What a fault does to a machine's network. An API server that drops a machine's requests is one
/// whose packets vanish.
fn network_fault(fault: &Fault) -> Option<NetworkFault> {
    match fault {
        Fault::Network(fault) => Some(*fault),
        Fault::ApiUnreachable => {
            Some(NetworkFault { kind: network::Kind::Drop, path: network::Path::Api })
        }
        _ => None,
    }
}

/// One machine, boot after boot.
struct Life {
    node: Arc<Node>,
    around: Surroundings,
    ground: Arc<Ground>,
    /// Where the node's IMDS is served.
    imds: SocketAddr,
    boot: Arc<Mutex<Boot>>,
}

/// A boot, and the network that was made for it.
struct Running {
    machine: Machine,
    _wire: Wire,
}

impl Life {
    /// Network and power: both new with each boot.
    fn start(&self) -> Result<Running, MachineError> {
        let node = &self.node;
        let wire = self.ground.connect(&node.instance, self.imds)?;
        let faults = node.live().faults.clone();
        if let Err(error) = node.shape_network(&self.around, &faults) {
            tracing::warn!(instance = %node.instance.instance_id, %error, "network is whole");
        }
        let machine = Machine::start(&node.directory(), &node.instance)?;
        self.note(&machine);
        Ok(Running { machine, _wire: wire })
    }

    fn note(&self, machine: &Machine) {
        let mut boot = self.boot.lock().unwrap_or_else(PoisonError::into_inner);
        let count = boot.count + 1;
        *boot = Boot { id: machine.boot_id().to_owned(), count, keeper: machine.keeper() };
    }

    /// Until it is switched off. Returns the processes that survived that.
    async fn run(self, first: Running, mut orders: mpsc::Receiver<Order>) -> Vec<ProcessId> {
        let mut running = first;
        loop {
            let next = boot_through(&mut running.machine, &mut orders).await;
            let left = running.machine.cut_power().await;
            running.machine.clear().await;
            let order = match next {
                Some(order) => order,
                None => {
                    self.node.live().stage = Stage::Off;
                    switched_on(&mut orders).await
                }
            };
            if order == Order::Off {
                return left;
            }
            match self.start() {
                Ok(started) => running = started,
                Err(error) => {
                    let id = &self.node.instance.instance_id;
                    tracing::warn!(instance = %id, error = %ErrorChain(&error), "not restarted");
                    self.node.live().stage = Stage::Stuck;
                    return left;
                }
            }
            self.node.live().stage = Stage::Running;
        }
    }
}

/// Lives through one boot. Answers what comes next; nothing when the machine has switched itself
/// off.
async fn boot_through(machine: &mut Machine, orders: &mut mpsc::Receiver<Order>) -> Option<Order> {
    let order = tokio::select! {
        ending = machine.ended() => return (ending == Ending::Reboot).then_some(Order::Reboot),
        order = orders.recv() => order,
    };
    match order {
        Some(Order::Reboot) => machine.ask_to_reboot(),
        Some(Order::Stop) => machine.ask_to_power_off().await,
        Some(Order::Off) | None => return Some(Order::Off),
    }
    let switched_off =
        async { while matches!(orders.recv().await, Some(Order::Reboot | Order::Stop)) {} };
    tokio::select! {
        _ = tokio::time::timeout(REBOOT_WITHIN, machine.ended()) => order.filter(|o| *o == Order::Reboot),
        () = switched_off => Some(Order::Off),
    }
}

/// What a machine that is off is told next: to start, or that it is gone.
async fn switched_on(orders: &mut mpsc::Receiver<Order>) -> Order {
    loop {
        match orders.recv().await {
            Some(Order::Stop) => {}
            Some(order @ (Order::Reboot | Order::Off)) => return order,
            None => return Order::Off,
        }
    }
}
