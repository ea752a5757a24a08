//! The lab's Kubernetes: a control plane behind one seam, and the kubelet that runs on process nodes.
//!
//! [`ControlPlane`] is what the rest of the lab knows. It has two forms: [`standin`], an API server
//! double that answers as EKS does for what Rollcall uses, and [`real`], the real kube-apiserver
//! with its controllers behind the same calls. What both need is beside them: [`authority`] signs their
//! certificates, [`world`] asks the AWS emulator, [`authn`] and [`token`] know who is asking, [`addons`]
//! and [`cloud`] are what EKS does in a cluster.
//!
//! [`kubelet_standin`] is the double of kubelet and of what kubelet would run (VPC CNI daemon,
//! kube-proxy, device plugin).

mod addons;
mod authn;
pub(crate) mod authority;
mod cloud;
pub mod dra_driver_double;
pub mod kubelet_standin;
mod operator;
pub mod real;
pub mod standin;
#[cfg(test)]
mod tests;
mod token;
mod view;
mod world;

pub use authority::WriteError;
pub use operator::Operator;
pub use view::NodeView;
pub use world::WorldError;

use crate::relay::Troubles;

/// The cluster's control plane, in whichever gear the lab runs.
#[derive(Debug, Clone)]
pub enum ControlPlane {
    /// The API server stand-in, inside this process.
    Standin(standin::Handle),
    /// kube-apiserver and its controllers, as children of this process.
    Real(real::Handle),
}

impl ControlPlane {
    /// Where the API is served: `https://localhost:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        match self {
            Self::Standin(handle) => handle.endpoint(),
            Self::Real(handle) => handle.endpoint(),
        }
    }

    /// The certificate authority that signed the endpoint's certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        match self {
            Self::Standin(handle) => handle.ca_pem(),
            Self::Real(handle) => handle.ca_pem(),
        }
    }

    /// What the lab says about this part when it lists which parts are real.
    #[must_use]
    pub const fn description(&self) -> &'static str {
        match self {
            Self::Standin(_) => "stand-in (API server, controllers)",
            Self::Real(_) => "real (etcd, kube-apiserver, controller-manager, scheduler)",
        }
    }

    /// Every Node object.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        match self {
            Self::Standin(handle) => handle.nodes(),
            Self::Real(handle) => handle.nodes(),
        }
    }

    /// The available replicas of a Deployment; 0 when there is none of that name.
    #[must_use]
    pub fn available(&self, namespace: &str, deployment: &str) -> u32 {
        match self {
            Self::Standin(handle) => handle.available(namespace, deployment),
            Self::Real(handle) => handle.available(namespace, deployment),
        }
    }

    /// Closes the listener and every open connection, or listens again on the same port.
    pub fn set_reachable(&self, reachable: bool) {
        match self {
            Self::Standin(handle) => handle.set_reachable(reachable),
            Self::Real(handle) => handle.set_reachable(reachable),
        }
    }

    /// Leaves every request that carries this instance's token without an answer. The real one
    /// looks into no request: a machine's way to it is cut in the machine's own network.
    pub fn cut_off(&self, instance_id: &str, cut: bool) {
        match self {
            Self::Standin(handle) => handle.cut_off(instance_id, cut),
            Self::Real(_) => {}
        }
    }

    /// Has these ResourceSlices published, and no others, on behalf of the DRA driver's double.
    pub fn publish(&self, slices: Vec<serde_json::Value>) {
        match self {
            Self::Standin(handle) => handle.publish(&slices),
            Self::Real(handle) => handle.publish(slices),
        }
    }

    /// What is wrong with the way to the endpoint, by address; none where nothing is in between.
    pub(crate) fn troubles(&self) -> Option<Troubles> {
        match self {
            Self::Standin(_) => None,
            Self::Real(handle) => Some(handle.troubles()),
        }
    }

    /// Gives the API server a clock that is ahead of this instance's by so many seconds. The real
    /// one has this machine's.
    pub fn set_clock(&self, instance_id: &str, ahead: Option<i64>) {
        match self {
            Self::Standin(handle) => handle.set_clock(instance_id, ahead),
            Self::Real(_) => {
                tracing::warn!(instance_id, "the real API server has this machine's clock")
            }
        }
    }

    /// Ends serving; returns once the listener is closed.
    pub async fn stop(&self) {
        match self {
            Self::Standin(handle) => handle.stop().await,
            Self::Real(handle) => handle.stop().await,
        }
    }
}
