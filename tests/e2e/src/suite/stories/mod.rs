//! The stories, one per file, and the order in which they are told.

mod access_entry;
mod agent_fault;
mod cni;
mod fleet;
mod gate;
mod killed;
mod pods;
mod reboot;
mod two_writers;
mod user_scripts;
mod watch_sandbox;

use super::Suite;

/// A story: what it shows is its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// The main job.
    Up,
    /// kubectl with the kubeconfig that control writes.
    Kubectl,
    /// A pod that asks for a GPU.
    GpuPod,
    /// What the watch unit may not do.
    WatchSandbox,
    /// SIGKILL in each phase.
    Killed,
    /// The gate on the drivers.
    Gate,
    /// A CNI that does not come.
    CniHeld,
    /// The stock image, and its reboot.
    Reboot,
    /// An agent that is garbage.
    AgentGarbage,
    /// An agent that aborts.
    AgentAborts,
    /// An agent that hangs.
    AgentHangs,
    /// A user script that hangs.
    ScriptHangs,
    /// A user script that takes a minute.
    ScriptTakesAMinute,
    /// eks-node-monitoring-agent beside ours.
    TwoWriters,
    /// A role that the cluster does not know.
    AccessEntry,
    /// The way down.
    Down,
}

/// What a story cannot be told without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: both gears tell it.
    Nothing,
    /// Machines: systemd, scripts, a sandbox.
    Machines,
}

use Story::*;

/// Acts follow one another; the stories of an act are told side by side.
pub const ACTS: &[&[Story]] = &[
    &[Up],
    &[Kubectl, GpuPod, WatchSandbox],
    &[Killed],
    &[
        Gate,
        CniHeld,
        Reboot,
        AgentGarbage,
        AgentAborts,
        AgentHangs,
        ScriptHangs,
        ScriptTakesAMinute,
    ],
    &[TwoWriters],
    &[AccessEntry],
    &[Down],
];

impl Story {
    /// What it shows.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Up => "control up: two system and two GPU nodes Ready, all GPUs proven",
            Kubectl => "kubectl get nodes, with the kubeconfig that control wrote",
            GpuPod => "a pod that asks for nvidia.com/gpu: 1 runs",
            WatchSandbox => "the watch can neither write nor remove what the join wrote",
            Killed => "killed once per boot, in each of the eight phases: the node joins",
            Gate => "a driver that does not match: kubelet is never started, then it joins",
            CniHeld => {
                "a CNI that is held back is named; with the add-on degraded by it another joins"
            }
            Reboot => "the stock image, agent from user data: the same again after a reboot",
            AgentGarbage => {
                "an agent that is garbage: AgentFault, and the node joins the stock way"
            }
            AgentAborts => {
                "an agent that aborts, onAgentFault: closed: AgentFault, and it stays out"
            }
            AgentHangs => {
                "an agent that hangs before its first word: AgentFault, and the node joins the stock way"
            }
            ScriptHangs => "a user script that hangs: CloudInitStuck; when it ends, the node joins",
            ScriptTakesAMinute => "a user script that takes 60 s: no reason at all",
            TwoWriters => {
                "eks-node-monitoring-agent's condition is left alone while it runs, and taken over when it has gone; events reach the Node"
            }
            AccessEntry => "the access entry removed: ApiServerUnauthorized before kubelet starts",
            Down => "control down, lab down: nothing is left",
        }
    }

    /// What it cannot be told without.
    #[must_use]
    pub const fn needs(self) -> Needs {
        match self {
            Up | Gate | CniHeld | TwoWriters | AccessEntry | Killed | Down => Needs::Nothing,
            Kubectl | GpuPod | WatchSandbox | Reboot | AgentGarbage | AgentAborts | AgentHangs
            | ScriptHangs | ScriptTakesAMinute => Needs::Machines,
        }
    }

    /// Tells it.
    ///
    /// # Errors
    /// When what it shows is not so.
    pub async fn tell(self, suite: &Suite) -> anyhow::Result<()> {
        match self {
            Up => fleet::up(suite).await,
            Kubectl => pods::kubectl_lists_the_nodes(suite).await,
            GpuPod => pods::a_pod_gets_a_gpu(suite).await,
            WatchSandbox => watch_sandbox::tell(suite).await,
            Killed => killed::tell(suite).await,
            Gate => gate::tell(suite).await,
            CniHeld => cni::tell(suite).await,
            Reboot => reboot::tell(suite).await,
            AgentGarbage => agent_fault::garbage_and_open(suite).await,
            AgentAborts => agent_fault::aborts_and_closed(suite).await,
            AgentHangs => agent_fault::hangs_and_open(suite).await,
            ScriptHangs => user_scripts::one_that_hangs(suite).await,
            ScriptTakesAMinute => user_scripts::one_that_takes_a_minute(suite).await,
            TwoWriters => two_writers::tell(suite).await,
            AccessEntry => access_entry::tell(suite).await,
            Down => fleet::down(suite).await,
        }
    }
}
