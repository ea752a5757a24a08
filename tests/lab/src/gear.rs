//! The lab's gears: which parts are real. The stand-ins run anywhere; real Kubernetes runs where
//! `make e2e-setup` has got its parts, machine nodes where that and root are to be had.

use clap::ValueEnum;
use contract::ErrorChain;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::kubernetes::real::Parts;
use crate::nodes::machine;

/// What serves the Kubernetes API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KubernetesGear {
    /// The best that this machine can.
    #[default]
    Auto,
    /// The API server stand-in.
    Standin,
    /// The real kube-apiserver.
    Real,
}

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodesGear {
    /// The best that this machine can.
    #[default]
    Auto,
    /// Processes below a root directory.
    Process,
    /// Machines with systemd as PID 1.
    Machine,
}

/// A gear that cannot be had.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GearError {
    /// Its parts are not on this machine.
    #[error("`{flag} {gear}` cannot run here: {why}; or use `{flag} {instead}`")]
    Missing {
        /// The option.
        flag: &'static str,
        /// Its value.
        gear: &'static str,
        /// The value that works.
        instead: &'static str,
        /// What is missing, and how to get it.
        why: String,
    },
}

/// The gears that will run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What serves the Kubernetes API.
    pub kubernetes: KubernetesGear,
    /// What a node is.
    pub nodes: NodesGear,
    /// Why `auto` took the stand-ins, where it did.
    pub why: Option<String>,
}

/// The gears that will run. `auto` takes the real ones where this machine can have them, so that a run
/// is either all real or all stand-ins.
///
/// # Errors
/// When one that was asked for by name cannot be had, or two that were do not go together.
pub fn choose(kubernetes: KubernetesGear, nodes: NodesGear) -> Result<Choice, GearError> {
    let machines = || machine::available().map_err(|why| ErrorChain(&why).to_string());
    let parts = || Parts::find().map(drop).map_err(|why| why.to_string());
    decide(kubernetes, nodes, machines, parts)
}

/// Decides from what can be had here: machines, the parts of a control plane. Pure but for these.
fn decide(
    kubernetes: KubernetesGear,
    nodes: NodesGear,
    machines: impl Fn() -> Result<(), String>,
    parts: impl Fn() -> Result<(), String>,
) -> Result<Choice, GearError> {
    let missing = |flag, gear, instead, why| GearError::Missing { flag, gear, instead, why };
    let choice = |kubernetes, nodes, why| Choice { kubernetes, nodes, why };
    let kubernetes_real = || {
        parts().map_err(|why| missing("--kubernetes", "real", "standin", why))?;
        Ok(KubernetesGear::Real)
    };
    let process = NodesGear::Process;
    Ok(match (kubernetes, nodes) {
        (KubernetesGear::Standin, NodesGear::Machine) => {
            // A real kubelet asks for what the stand-in does not serve.
            let why = "a machine's kubelet needs the real API server".to_owned();
            return Err(missing("--nodes", "machine", "process", why));
        }
        (_, NodesGear::Machine) => {
            machines().map_err(|why| missing("--nodes", "machine", "process", why))?;
            choice(kubernetes_real()?, NodesGear::Machine, None)
        }
        (KubernetesGear::Standin, _) => choice(KubernetesGear::Standin, process, None),
        (KubernetesGear::Auto, NodesGear::Process) => {
            choice(KubernetesGear::Standin, process, None)
        }
        (KubernetesGear::Real, NodesGear::Process) => choice(kubernetes_real()?, process, None),
        (KubernetesGear::Real, NodesGear::Auto) => match machines() {
            Ok(()) => choice(kubernetes_real()?, NodesGear::Machine, None),
            Err(why) => choice(kubernetes_real()?, process, Some(why)),
        },
        (KubernetesGear::Auto, NodesGear::Auto) => match machines().and_then(|()| parts()) {
            Ok(()) => choice(KubernetesGear::Real, NodesGear::Machine, None),
            Err(why) => choice(KubernetesGear::Standin, process, Some(why)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use KubernetesGear as K;
    use NodesGear as N;

    fn with(
        kubernetes: K,
        nodes: N,
        machines: Result<(), &str>,
        parts: Result<(), &str>,
    ) -> Result<Choice, GearError> {
        let say = |answer: Result<(), &str>| answer.map_err(str::to_owned);
        decide(kubernetes, nodes, || say(machines), || say(parts))
    }

    #[test]
    fn auto_is_all_real_or_all_stand_ins_and_says_why() {
        let all = with(K::Auto, N::Auto, Ok(()), Ok(())).unwrap();
        assert_eq!((all.kubernetes, all.nodes, all.why), (K::Real, N::Machine, None));
        for (machines, parts, why) in
            [(Err("not root"), Ok(()), "not root"), (Ok(()), Err("no etcd"), "no etcd")]
        {
            let none = with(K::Auto, N::Auto, machines, parts).unwrap();
            assert_eq!((none.kubernetes, none.nodes), (K::Standin, N::Process));
            assert_eq!(none.why.as_deref(), Some(why));
        }
    }

    #[test]
    fn what_is_asked_for_by_name_is_had_or_refused_by_name() {
        let quick = with(K::Standin, N::Auto, Ok(()), Ok(())).unwrap();
        assert_eq!((quick.kubernetes, quick.nodes), (K::Standin, N::Process));
        let quick = with(K::Auto, N::Process, Ok(()), Ok(())).unwrap();
        assert_eq!((quick.kubernetes, quick.nodes), (K::Standin, N::Process));
        let mixed = with(K::Real, N::Auto, Err("not root"), Ok(())).unwrap();
        assert_eq!((mixed.kubernetes, mixed.nodes), (K::Real, N::Process));
        for (refused, words) in [
            (
                with(K::Real, N::Process, Ok(()), Err("make e2e-setup")),
                ["make e2e-setup", "standin"],
            ),
            (with(K::Auto, N::Machine, Err("not root"), Ok(())), ["--nodes machine", "process"]),
            (with(K::Standin, N::Machine, Ok(()), Ok(())), ["real API server", "--nodes process"]),
        ] {
            let text = refused.unwrap_err().to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
