//! The lab's gears: which parts are real. The stand-ins run anywhere; real Kubernetes runs where
//! `make e2e-setup` has got its parts, machine nodes where that and root are to be had.

use clap::ValueEnum;
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

impl KubernetesGear {
    /// The gear that will run. Machines have a real kubelet, which needs real Kubernetes; `auto` takes real Kubernetes only together with machine nodes, so
    /// that a run is either all stand-ins or all real.
    ///
    /// # Errors
    /// When the parts of the one asked for are not here.
    pub fn resolve(self, nodes: NodesGear) -> Result<Self, GearError> {
        match (self, nodes) {
            (Self::Standin, _) | (Self::Auto, NodesGear::Auto | NodesGear::Process) => {
                Ok(Self::Standin)
            }
            (Self::Real, _) => Parts::find().map(|_| Self::Real).map_err(|why| {
                let (flag, gear, instead) = ("--kubernetes", "real", "standin");
                GearError::Missing { flag, gear, instead, why: why.to_string() }
            }),
            (Self::Auto, NodesGear::Machine) => {
                Ok(Parts::find().map_or(Self::Standin, |_| Self::Real))
            }
        }
    }
}

impl NodesGear {
    /// The gear that will run.
    ///
    /// # Errors
    /// When this machine cannot have the one asked for.
    pub fn resolve(self) -> Result<Self, GearError> {
        match self {
            Self::Auto | Self::Process => Ok(Self::Process),
            Self::Machine => machine::check().map(|_| Self::Machine).map_err(|why| {
                let (flag, gear, instead) = ("--nodes", "machine", "process");
                GearError::Missing { flag, gear, instead, why: why.to_string() }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_what_there_is_and_the_rest_is_refused_by_name() {
        let process = NodesGear::Process;
        assert_eq!(KubernetesGear::Auto.resolve(process), Ok(KubernetesGear::Standin));
        assert_eq!(KubernetesGear::Standin.resolve(process), Ok(KubernetesGear::Standin));
        assert_eq!(NodesGear::Auto.resolve(), Ok(NodesGear::Process));
        if let Err(error) = NodesGear::Machine.resolve() {
            let text = error.to_string();
            assert!(text.contains("--nodes machine") && text.contains("process"), "{text}");
        }
        // With or without the parts: real, or a refusal that says what is missing and what works.
        match KubernetesGear::Real.resolve(process) {
            Ok(gear) => assert_eq!(gear, KubernetesGear::Real),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("make e2e-setup") && text.contains("standin"), "{text}");
            }
        }
    }
}
