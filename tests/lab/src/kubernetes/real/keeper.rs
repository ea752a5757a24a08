//! Keeps the control plane as the cluster is: started, restarted, ended with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use contract::ErrorChain;
use serde_json::Value;
use tokio::sync::watch;

use super::addons::Applied;
use super::api::{Api, ApiError};
use super::pki::Pki;
use super::programs::{Layout, Programs};
use super::{RealConfig, RealError, bootstrap, cloud};
use crate::kubernetes::view::available_replicas;
use crate::kubernetes::world::{Cluster, Observation, Watcher};
use crate::kubernetes::{NodeView, dra_driver_double};
use crate::relay::Mode;

/// The longest time between two passes.
const PASS: Duration = Duration::from_millis(500);
/// How long is waited before programs that ended are started again.
const AGAIN: Duration = Duration::from_secs(2);

/// What the rest of the lab sees of the cluster.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) nodes: Vec<NodeView>,
    /// Available replicas by `NAMESPACE/NAME`.
    pub(super) available: HashMap<String, u32>,
}

/// One control plane's keeper.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) api: SocketAddr,
    pub(super) endpoint: SocketAddr,
    pub(super) webhook: SocketAddr,
    pub(super) pki: Pki,
    pub(super) config: RealConfig,
    pub(super) watcher: Arc<Watcher>,
    pub(super) view: Arc<RwLock<View>>,
    /// What the DRA driver's double offers.
    pub(super) slices: Arc<RwLock<Vec<Value>>>,
}

/// A control plane that runs for one cluster.
struct Plane {
    cluster: String,
    programs: Programs,
    api: Api,
    bootstrapped: bool,
    addons: Applied,
    /// Whether there may be slices of the DRA driver's double.
    publishes: bool,
}

impl Keeper {
    /// Keeps until the mode is [`Mode::Stopped`].
    pub(super) async fn run(self, mut mode: watch::Receiver<Mode>) {
        let mut plane = None;
        loop {
            let pause = tokio::select! {
                pause = self.pass(&mut plane) => pause,
                _ = mode.wait_for(|mode| *mode == Mode::Stopped) => break,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = mode.wait_for(|mode| *mode == Mode::Stopped) => break,
            }
        }
        if let Some(plane) = plane {
            plane.programs.end().await;
        }
    }

    /// One pass; answers how long to wait before the next.
    async fn pass(&self, plane: &mut Option<Plane>) -> Duration {
        let observation = match self.watcher.observation().await {
            Ok(observation) => observation,
            Err(error) => {
                tracing::warn!(%error, "the control plane waits for the AWS emulator");
                return AGAIN;
            }
        };
        let cluster = observation.cluster.as_ref().filter(|cluster| cluster.status != "DELETING");
        if let Some(mut running) = plane.take() {
            match (cluster.filter(|c| c.name == running.cluster), running.programs.ended()) {
                (Some(_), None) => *plane = Some(running),
                (Some(_), Some((program, status))) => {
                    tracing::error!(program, %status, "a program of the control plane has ended");
                    running.programs.end().await;
                    return AGAIN;
                }
                (None, _) => {
                    tracing::info!("the cluster is gone: its control plane ends");
                    running.programs.end().await;
                    self.forget();
                }
            }
        }
        let Some(cluster) = cluster else { return PASS };
        if plane.is_none() {
            match self.start(cluster).await {
                Ok(started) => *plane = Some(started),
                Err(error) => {
                    tracing::error!(error = %ErrorChain(&error), "no control plane");
                    return AGAIN;
                }
            }
        }
        if let Some(plane) = plane
            && let Err(error) = self.reconcile(plane, cluster, &observation).await
        {
            tracing::warn!(error = %ErrorChain(&error), "could not act in the cluster");
        }
        PASS
    }

    fn dir(&self) -> PathBuf {
        self.config.dir.join("control-plane")
    }

    async fn start(&self, cluster: &Cluster) -> Result<Plane, RealError> {
        let dir = self.dir();
        std::fs::create_dir_all(&dir)
            .map_err(|source| RealError::Directory { path: dir.clone(), source })?;
        let api = Api::new(format!("https://{}", self.api), &self.pki)?;
        let layout = Layout {
            parts: &self.config.parts,
            pki: &self.pki,
            dir: &dir,
            api: self.api,
            endpoint: self.endpoint,
            webhook: self.webhook,
            service_cidr: cluster.service_cidr.as_deref().unwrap_or("10.100.0.0/16"),
        };
        let programs = Programs::start(&layout, &api).await?;
        Ok(Plane {
            cluster: cluster.name.clone(),
            programs,
            api,
            bootstrapped: false,
            addons: Applied::default(),
            publishes: false,
        })
    }

    /// The cluster's data and what was seen of it.
    fn forget(&self) {
        let dir = self.dir();
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::warn!(%error, path = %dir.display(), "could not remove a cluster's data");
        }
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = View::default();
    }

    async fn reconcile(
        &self,
        plane: &mut Plane,
        cluster: &Cluster,
        observation: &Observation,
    ) -> Result<(), ApiError> {
        if !plane.bootstrapped {
            bootstrap::apply(&plane.api).await?;
            plane.bootstrapped = true;
        }
        plane.addons.reconcile(&plane.api, &cluster.addons).await?;
        let nodes = cloud::reconcile(&plane.api, &observation.instances).await?;
        let wanted = self.slices.read().unwrap_or_else(PoisonError::into_inner).clone();
        publish(&plane.api, &wanted, &mut plane.publishes).await?;
        let available = available(&plane.api).await?;
        let view = View { nodes, available };
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        Ok(())
    }
}

/// Carries the DRA driver's double's plan out; where nothing is offered by DRA, nothing is asked.
async fn publish(api: &Api, wanted: &[Value], publishes: &mut bool) -> Result<(), ApiError> {
    if wanted.is_empty() && !*publishes {
        return Ok(());
    }
    let present = api.list(dra_driver_double::PATH).await?;
    let plan = dra_driver_double::plan(wanted, present.iter());
    for slice in &plan.apply {
        let name = slice["metadata"]["name"].as_str().unwrap_or_default();
        api.apply(&format!("{}/{name}", dra_driver_double::PATH), slice).await?;
    }
    for name in &plan.delete {
        api.delete(&format!("{}/{name}", dra_driver_double::PATH)).await?;
    }
    *publishes = !wanted.is_empty();
    Ok(())
}

async fn available(api: &Api) -> Result<HashMap<String, u32>, ApiError> {
    let deployments = api.list("/apis/apps/v1/deployments").await?;
    let count = |deployment: &Value| {
        let text = |field: &str| deployment["metadata"][field].as_str().unwrap_or_default();
        let name = format!("{}/{}", text("namespace"), text("name"));
        (name, available_replicas(deployment))
    };
    Ok(deployments.iter().map(count).collect())
}
