//! The lab's gears: which parts are real. The stand-ins run today; real Kubernetes and machine
//! nodes take their places behind the same choices.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use thiserror::Error;

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

/// A gear that this lab does not have.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{flag} {gear}` is not built yet: use `{flag} {instead}`, or leave it out")]
pub struct NotBuilt {
    flag: &'static str,
    gear: &'static str,
    instead: &'static str,
}

impl KubernetesGear {
    /// The gear that will run.
    ///
    /// # Errors
    /// When it is not built yet.
    pub fn resolve(self) -> Result<Self, NotBuilt> {
        match self {
            Self::Auto | Self::Standin => Ok(Self::Standin),
            Self::Real => Err(NotBuilt { flag: "--kubernetes", gear: "real", instead: "standin" }),
        }
    }
}

impl NodesGear {
    /// The gear that will run.
    ///
    /// # Errors
    /// When it is not built yet.
    pub fn resolve(self) -> Result<Self, NotBuilt> {
        match self {
            Self::Auto | Self::Process => Ok(Self::Process),
            Self::Machine => Err(NotBuilt { flag: "--nodes", gear: "machine", instead: "process" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_what_there_is_and_the_rest_is_refused_by_name() {
        assert_eq!(KubernetesGear::Auto.resolve(), Ok(KubernetesGear::Standin));
        assert_eq!(NodesGear::Auto.resolve(), Ok(NodesGear::Process));
        let error = KubernetesGear::Real.resolve().unwrap_err().to_string();
        assert!(error.contains("--kubernetes real") && error.contains("standin"), "{error}");
        assert!(NodesGear::Machine.resolve().is_err());
    }
}
