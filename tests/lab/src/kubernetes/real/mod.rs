//! The real Kubernetes control plane behind the lab's seam: etcd, kube-apiserver,
//! kube-controller-manager and kube-scheduler as children of the lab.
//!
//! Its life is the cluster's: it starts when the emulator has a cluster and ends, with all of its
//! data, when that is deleted. Before it stands a [`Relay`] that holds the endpoint. Tokens are
//! reviewed by [`webhook`]; [`bootstrap`], [`addons`] and [`cloud`] do what EKS does in a cluster.

mod addons;
mod api;
mod bootstrap;
mod cloud;
mod keeper;
mod parts;
mod pki;
mod programs;
mod webhook;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::authn::Authenticator;
use super::world::{Emulator, Watcher, World};
use super::{NodeView, WorldError, WriteError};
use crate::relay::{Mode, Relay, Troubles};
use keeper::{Keeper, View};
pub use parts::{Parts, PartsError};
use webhook::Webhook;

/// Where the API server itself listens: the endpoint's port, at an address of loopback that is not
/// the endpoint's.
const BEHIND: [u8; 4] = [127, 77, 0, 1];

/// Where and how real Kubernetes runs.
#[derive(Debug, Clone)]
pub struct RealConfig {
    /// Where the endpoint is; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificates, data and logs.
    pub dir: PathBuf,
    /// The region whose STS signs tokens.
    pub region: String,
    /// What it is made of.
    pub parts: Parts,
}

/// Why the control plane does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RealError {
    /// A part is missing.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// The address is taken or not ours.
    #[error("could not listen on `{address}`")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The place for the cluster's data could not be made.
    #[error("could not make `{}`", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No certificate could be made.
    #[error("could not make the cluster's certificates")]
    Certificate(#[from] rcgen::Error),
    /// No HTTP client could be made.
    #[error("could not make an HTTP client")]
    Client(#[from] reqwest::Error),
    /// A program could not be started.
    #[error("could not start `{name}`")]
    Start {
        /// The program.
        name: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program ended by itself.
    #[error("`{name}` ended with {status}: {last}")]
    Ended {
        /// The program.
        name: &'static str,
        /// How.
        status: ExitStatus,
        /// The last line of its log.
        last: String,
    },
    /// The API server did not become ready.
    #[error("kube-apiserver was not ready within {within:?}: {last}")]
    NotReady {
        /// The deadline.
        within: Duration,
        /// The last line of its log.
        last: String,
    },
    /// The emulator did not answer.
    #[error("could not take the cluster's identity from the AWS emulator")]
    Emulator(#[source] WorldError),
}

/// A cluster that has its endpoint and its authority, and does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    listen: SocketAddr,
    endpoint: String,
    pki: pki::Pki,
    ca_path: PathBuf,
    config: RealConfig,
}

/// Takes a port and makes the cluster's authority.
///
/// # Errors
///
/// When the address is not free, or a certificate cannot be written.
pub async fn bind(config: RealConfig) -> Result<Bound, RealError> {
    let address = config.listen;
    let failed = |source| RealError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let listen = listener.local_addr().map_err(failed)?;
    let pki = pki::make(&config.dir.join("pki"), &[listen.ip(), BEHIND.into()])?;
    let ca_path = pki.ca();
    let host = if listen.ip().is_loopback() { "localhost".into() } else { listen.ip().to_string() };
    let endpoint = format!("https://{host}:{}", listen.port());
    Ok(Bound { listener, listen, endpoint, pki, ca_path, config })
}

impl Bound {
    /// Where the API will be served.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The certificate authority.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.pki.ca_pem
    }

    /// The file that holds the certificate authority.
    #[must_use]
    pub fn ca_path(&self) -> &Path {
        &self.ca_path
    }

    /// Serves the cluster of the AWS emulator at this address, while it has one.
    ///
    /// # Errors
    ///
    /// When the emulator does not answer, or no port is free.
    pub async fn serve(self, emulator_url: impl AsRef<str>) -> Result<Handle, RealError> {
        let emulator = Emulator::new(emulator_url.as_ref())?;
        emulator.observe().await.map_err(RealError::Emulator)?;
        self.serve_world(Arc::new(emulator)).await
    }

    /// Serves the cluster of any world.
    pub(super) async fn serve_world(self, world: Arc<dyn World>) -> Result<Handle, RealError> {
        let watcher = Arc::new(Watcher::new(world));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let failed = |source| RealError::Listen { address, source };
        let reviews = TcpListener::bind(address).await.map_err(failed)?;
        let webhook = reviews.local_addr().map_err(failed)?;
        let (mode, receiver) = watch::channel(Mode::Open);
        let view = Arc::new(RwLock::new(View::default()));
        let troubles = Troubles::default();
        let slices = Arc::default();
        let keeper = Keeper {
            api: SocketAddr::from((BEHIND, self.listen.port())),
            endpoint: self.listen,
            webhook,
            pki: self.pki.clone(),
            config: self.config.clone(),
            watcher: Arc::clone(&watcher),
            view: Arc::clone(&view),
            slices: Arc::clone(&slices),
        };
        let answers = Webhook {
            watcher,
            authenticator: Authenticator::default(),
            region: self.config.region.clone(),
        };
        let reviewing = tokio::spawn(webhook::serve(reviews, Arc::new(answers)));
        let relay = Relay {
            listener: self.listener,
            upstream: keeper.api,
            troubles: troubles.clone(),
            tls: None,
        };
        let relaying = relay.run(receiver.clone());
        let keeping = keeper.run(receiver);
        let task = tokio::spawn(async move {
            tokio::join!(relaying, keeping);
            reviewing.abort();
        });
        let shared = Shared {
            endpoint: self.endpoint,
            ca_pem: self.pki.ca_pem,
            view,
            troubles,
            slices,
            mode,
            task: Mutex::new(Some(task)),
        };
        Ok(Handle(Arc::new(shared)))
    }
}

#[derive(Debug)]
struct Shared {
    endpoint: String,
    ca_pem: String,
    view: Arc<RwLock<View>>,
    troubles: Troubles,
    slices: Arc<RwLock<Vec<Value>>>,
    mode: watch::Sender<Mode>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Stopped);
    }
}

/// A control plane that is kept running. It ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Where the API is served.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// The certificate authority.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.0.ca_pem
    }

    /// Every Node object, as of the last look.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        self.0.view.read().unwrap_or_else(PoisonError::into_inner).nodes.clone()
    }

    /// The available replicas of a Deployment; 0 when there is none of that name.
    #[must_use]
    pub fn available(&self, namespace: &str, deployment: &str) -> u32 {
        let view = self.0.view.read().unwrap_or_else(PoisonError::into_inner);
        view.available.get(&format!("{namespace}/{deployment}")).copied().unwrap_or(0)
    }

    /// Closes the endpoint and every connection through it, or opens the same port again.
    pub fn set_reachable(&self, reachable: bool) {
        self.0.mode.send_if_modified(|mode| {
            let wanted = if reachable { Mode::Open } else { Mode::Closed };
            let change = *mode != Mode::Stopped && *mode != wanted;
            if change {
                *mode = wanted;
            }
            change
        });
    }

    /// Has these ResourceSlices published, and no others of the DRA driver's double.
    pub fn publish(&self, slices: Vec<Value>) {
        *self.0.slices.write().unwrap_or_else(PoisonError::into_inner) = slices;
    }

    /// What is wrong with the way to the endpoint, by a node's address.
    pub(crate) fn troubles(&self) -> Troubles {
        self.0.troubles.clone()
    }

    /// Ends serving; returns once every program has ended.
    pub async fn stop(&self) {
        self.0.mode.send_replace(Mode::Stopped);
        let task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the control plane's task failed");
        }
    }
}
