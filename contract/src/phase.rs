//! The join's phases in order: the one place that owns order, label, deadline and meaning.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One step of a node's join. The order of the variants is the order of the join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// IMDSv2: who are we, and what were we told?
    Identify,
    /// Agent config and every NodeConfig source, merged and linted.
    Configure,
    /// Can this host reach its cluster, and is it known there?
    Preflight,
    /// Does every GPU that was paid for work?
    Drivers,
    /// nodeadm's config phase: the node's configuration is on disk.
    Bootstrap,
    /// Will networking come up once the node registers?
    Cni,
    /// nodeadm's run phase: kubelet starts and the Node object appears.
    Register,
    /// Network up, Node Ready, GPUs on offer.
    Ready,
}

impl Phase {
    /// Every phase, in join order.
    pub const ALL: [Self; 8] = [
        Self::Identify,
        Self::Configure,
        Self::Preflight,
        Self::Drivers,
        Self::Bootstrap,
        Self::Cni,
        Self::Register,
        Self::Ready,
    ];

    /// The phase's name on every channel: `preflight`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Configure => "configure",
            Self::Preflight => "preflight",
            Self::Drivers => "drivers",
            Self::Bootstrap => "bootstrap",
            Self::Cni => "cni",
            Self::Register => "register",
            Self::Ready => "ready",
        }
    }

    /// The longest the phase may take before its gate closes with what is known by then.
    #[must_use]
    pub const fn cap(self) -> Duration {
        Duration::from_secs(match self {
            Self::Identify | Self::Cni => 60,
            Self::Configure => 30,
            Self::Preflight | Self::Bootstrap => 90,
            Self::Drivers | Self::Ready => 300,
            Self::Register => 120,
        })
    }

    /// What the phase's gate proves, in one line.
    #[must_use]
    pub const fn proves(self) -> &'static str {
        match self {
            Self::Identify => "we know who we are",
            Self::Configure => "the configuration is complete and legal",
            Self::Preflight => "this host can reach its cluster and is known to it",
            Self::Drivers => "every GPU that was paid for works",
            Self::Bootstrap => "the node's configuration is on disk, and is the one asked for",
            Self::Cni => "networking will come up once we register",
            Self::Register => "the node is in the cluster",
            Self::Ready => "workloads can run here",
        }
    }

    /// Whether kubelet must not run before this phase has passed.
    #[must_use]
    pub fn is_before_kubelet(self) -> bool {
        self < Self::Register
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_join_order_and_complete() {
        assert!(Phase::ALL.is_sorted());
        assert_eq!(Phase::ALL.len(), Phase::Ready as usize + 1);
    }

    #[test]
    fn label_is_the_wire_name() {
        for phase in Phase::ALL {
            let wire = serde_json::to_value(phase).unwrap();
            assert_eq!(wire, phase.label());
        }
    }

    #[test]
    fn kubelet_waits_for_the_first_six() {
        let before: Vec<_> = Phase::ALL.into_iter().filter(|p| p.is_before_kubelet()).collect();
        assert_eq!(before, Phase::ALL[..6]);
    }
}
