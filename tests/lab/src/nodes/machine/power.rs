//! One boot of a machine: its namespaces and its systemd, from power on to the reason why it ended.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use super::console::Console;
use super::remains::GONE_WITHIN;
use super::{Ground, MachineError, image, remains};
use crate::aws::Instance;
use crate::directory::write_atomically;
use crate::processes::{self, ProcessId};

/// How a boot ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// PID 1 asked the kernel for a restart.
    Reboot,
    /// PID 1 asked the kernel to halt or to power off, or died.
    Off,
}

impl Ending {
    /// The kernel ends a namespace's PID 1 by SIGHUP when it asks for a restart, by SIGINT when it
    /// asks for the other (reboot(2)); `unshare` ends as its child did.
    fn of(status: ExitStatus) -> Self {
        if status.signal() == Some(Signal::SIGHUP as i32) { Self::Reboot } else { Self::Off }
    }
}

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    name: String,
    boot_id: String,
    child: Child,
    _console: Console,
}

impl Machine {
    /// Makes the instance's disk. `node` is the node's directory, whose `root` holds the console
    /// and the simulated GPUs.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn install(ground: &Ground, node: &Path, instance: &Instance) -> Result<(), MachineError> {
        image::write(node, ground, instance)
    }

    /// Powers the instance on: its disk and its network are there.
    ///
    /// # Errors
    /// When its first process cannot be made.
    pub fn start(node: &Path, instance: &Instance) -> Result<Self, MachineError> {
        let name = name_of(&instance.instance_id);
        let system = |what: &str, source| MachineError::System(what.to_owned(), source);
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(|error| system("make a boot id", error))?;
        write_atomically(&node.join("machine/boot_id"), boot_id.as_bytes(), 0o444)?;
        let console = Console::open(&node.join("root/dev/console"))
            .map_err(|error| system("make a console", error))?;
        let child = Command::new(node.join("machine/start.sh"))
            .args([node.as_os_str(), name.as_ref(), console.terminal.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| system("start a machine", error))?;
        let boot_id = boot_id.trim().to_owned();
        Ok(Self { name: name.to_owned(), boot_id, child, _console: console })
    }

    /// The boot's id, as the machine's kernel would say it.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The process outside whose only child is the machine's PID 1; none once it has ended.
    #[must_use]
    pub fn keeper(&self) -> Option<i32> {
        self.child.id().map(u32::cast_signed)
    }

    /// Waits until the machine ends by itself.
    pub async fn ended(&mut self) -> Ending {
        match self.child.wait().await {
            Ok(status) => Ending::of(status),
            Err(_) => Ending::Off,
        }
    }

    /// Asks it to restart as EC2 does, by ctrl-alt-del: systemd takes SIGINT for that.
    pub fn ask_to_reboot(&self) {
        if let Some(init) = self.keeper().and_then(init_of) {
            init.signal(Signal::SIGINT);
        }
    }

    /// Asks it to shut down as EC2 does, by its power button: systemd takes SIGRTMIN+4 for that.
    pub async fn ask_to_power_off(&self) {
        let Some(init) = self.keeper().and_then(init_of) else { return };
        let signal = ["-s", "RTMIN+4", &init.pid.to_string()].map(str::to_owned);
        match Command::new("kill").args(signal).status().await {
            Ok(status) if status.success() => {}
            outcome => tracing::warn!(name = self.name, ?outcome, "not asked to shut down"),
        }
    }

    /// Ends all of its processes at once. Returns those that survived.
    pub async fn cut_power(&mut self) -> Vec<ProcessId> {
        // The machine's systemd is unshare's child; with it go all processes of its namespace.
        let family = self.keeper().map(processes::descendants).unwrap_or_default();
        for id in &family {
            id.signal(Signal::SIGKILL);
        }
        let gone = processes::all_gone(&family, GONE_WITHIN).await;
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "unshare had ended");
        }
        if gone { Vec::new() } else { family.into_iter().filter(|id| id.is_alive()).collect() }
    }

    /// Removes its network and its cgroups; its processes have ended.
    pub async fn clear(self) {
        remains::remove(&self.name).await;
    }
}

/// The PID 1 of the machine that this `unshare` keeps, by its pid outside.
#[must_use]
pub fn init_of(keeper: i32) -> Option<ProcessId> {
    processes::children(keeper).into_iter().next()
}

/// The first process of a unit in an instance's machine, by its pid outside: systemd makes a group
/// for each unit, in the slice that it belongs to.
#[must_use]
pub fn pid_of(instance_id: &str, unit: &str) -> Option<i32> {
    let machine = Path::new("/sys/fs/cgroup/systemd/rollcall-lab").join(name_of(instance_id));
    ["system.slice", "runtime.slice"].iter().find_map(|slice| {
        let members = machine.join(slice).join(unit).join("cgroup.procs");
        std::fs::read_to_string(members).ok()?.lines().next()?.parse().ok()
    })
}

/// The short name of an instance's machine, as long as an interface's name allows.
pub(super) fn name_of(instance_id: &str) -> &str {
    &instance_id[instance_id.len().saturating_sub(8)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_have_names_that_the_kernel_takes() {
        assert_eq!(name_of("i-364dd578347dc7f10"), "47dc7f10");
        assert!(format!("rc-{}", name_of("i-364dd578347dc7f10")).len() <= 15);
        assert!(super::super::network::BRIDGE.len() <= 15);
    }

    #[test]
    fn only_a_restart_boots_again() {
        for (raw, ending) in [
            (Signal::SIGHUP as i32, Ending::Reboot),
            (Signal::SIGINT as i32, Ending::Off),
            (Signal::SIGKILL as i32, Ending::Off),
            (0, Ending::Off),
        ] {
            assert_eq!(Ending::of(ExitStatus::from_raw(raw)), ending, "{raw}");
        }
    }
}
