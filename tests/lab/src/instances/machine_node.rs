//! A machine node's life: powered on, restarted from inside or by EC2, powered off.
//!
//! A machine boots by itself: it gets a disk, a network, IMDS and power, and does the rest.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::ErrorChain;
use contract::names::{UNIT_JOIN, UNIT_KUBELET, UNIT_WATCH};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::node::{Node, Pids, Stage, Surroundings};
use crate::aws::Instance;
use crate::faults::Fault;
use crate::nodes::machine::{Ending, Ground, Machine, MachineError, init_of, pid_of};
use crate::processes::ProcessId;

/// How long a machine may take to restart before its power is cut. EC2 waits 4 minutes.
const REBOOT_WITHIN: Duration = Duration::from_secs(60);

/// What a machine is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// EC2 restarts the instance.
    Reboot,
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
        faults: Vec<Fault>,
    ) -> Result<(), super::node::BootError> {
        std::fs::create_dir_all(self.root.join("dev"))?;
        self.hardware.set(&[])?;
        self.lay(around, faults).await;
        Machine::install(ground, &self.directory(), &self.instance)?;
        let first = self.start_machine(around)?;
        let (orders, receiver) = mpsc::channel(4);
        let boot = Arc::new(Mutex::new(Boot::default()));
        let life = Life { node: Arc::clone(self), around: around.clone(), boot: Arc::clone(&boot) };
        life.note(&first);
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

    /// Network, IMDS, power: all of them new with each boot.
    fn start_machine(&self, around: &Surroundings) -> Result<Machine, MachineError> {
        let listener = Machine::connect(&self.instance)?;
        let imds = self.imds.start(listener, around.emulator.clone());
        self.live().imds = Some(imds);
        Machine::start(&self.directory(), &self.instance)
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

/// One machine, boot after boot.
struct Life {
    node: Arc<Node>,
    around: Surroundings,
    boot: Arc<Mutex<Boot>>,
}

impl Life {
    fn note(&self, machine: &Machine) {
        let mut boot = self.boot.lock().unwrap_or_else(PoisonError::into_inner);
        let count = boot.count + 1;
        *boot = Boot { id: machine.boot_id().to_owned(), count, keeper: machine.keeper() };
    }

    /// Until it is switched off. Returns the processes that survived that.
    async fn run(self, first: Machine, mut orders: mpsc::Receiver<Order>) -> Vec<ProcessId> {
        let mut machine = first;
        loop {
            let next = boot_through(&mut machine, &mut orders).await;
            let left = machine.cut_power().await;
            machine.clear().await;
            let order = match next {
                Some(order) => order,
                None => {
                    self.node.live().stage = Stage::Off;
                    orders.recv().await.unwrap_or(Order::Off)
                }
            };
            if order == Order::Off {
                return left;
            }
            match self.node.start_machine(&self.around) {
                Ok(started) => machine = started,
                Err(error) => {
                    let id = &self.node.instance.instance_id;
                    tracing::warn!(instance = %id, error = %ErrorChain(&error), "not restarted");
                    self.node.live().stage = Stage::Stuck;
                    return left;
                }
            }
            self.note(&machine);
            self.node.live().stage = Stage::Running;
        }
    }
}

/// Lives through one boot. Answers what comes next; nothing when the machine has switched itself
/// off.
async fn boot_through(machine: &mut Machine, orders: &mut mpsc::Receiver<Order>) -> Option<Order> {
    tokio::select! {
        ending = machine.ended() => return (ending == Ending::Reboot).then_some(Order::Reboot),
        order = orders.recv() => if order != Some(Order::Reboot) { return Some(Order::Off) },
    }
    machine.ask_to_reboot();
    let switched_off = async { while orders.recv().await == Some(Order::Reboot) {} };
    tokio::select! {
        _ = tokio::time::timeout(REBOOT_WITHIN, machine.ended()) => Some(Order::Reboot),
        () = switched_off => Some(Order::Off),
    }
}
