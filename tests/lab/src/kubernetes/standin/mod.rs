//! A double of an EKS cluster's API server and controllers, for nodes and for `control`.
//!
//! It stands at the process boundary: TLS with the cluster's own authority, HTTP/1.1, JSON, and the
//! answers of the real API server for the resources that Rollcall uses. Tokens are checked as EKS
//! checks them, against the AWS emulator's STS and access entries; authorisation is the node
//! authorizer, RBAC and EKS's access policies. Where it answers differently from the real API
//! server, it is wrong.
//!
//! A request's way: [`listener`] → [`service`] ([`request`], [`super::authn`], [`authz`]) → [`resources`],
//! [`watching`], [`reviews`] or [`discovery`] → [`store`]. Beside it run the controllers in
//! [`workloads`].
//!
//! Not here: list chunks, tables, managed fields and their conflicts, dry runs, finalizers,
//! graceful deletion.

mod admission;
mod authz;
mod discovery;
mod listener;
mod metadata;
mod patch;
mod registry;
mod reply;
mod request;
mod resources;
mod reviews;
mod selector;
mod service;
mod status;
mod store;
mod validation;
mod watching;
mod workloads;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::authn::Authenticator;
use super::authority::{Authority, write};
use super::view::available_replicas;
use super::world::{Emulator, Watcher, World};
use super::{NodeView, WorldError, WriteError, dra_driver_double};
pub(super) use admission::is_restricted_label;
use listener::Mode;
use registry::{DEPLOYMENTS, NODES, RESOURCESLICES};
use service::ApiServer;
use store::Store;
pub(super) use workloads::Timing;

/// Where and how the stand-in serves.
#[derive(Debug, Clone)]
pub struct StandinConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `ca.crt` is written.
    pub dir: PathBuf,
    /// The region whose STS signs tokens.
    pub region: String,
}

/// Why the stand-in did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StandinError {
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
    /// No certificate could be made.
    #[error("could not make the cluster's certificates")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("could not set up TLS")]
    Tls(#[from] rustls::Error),
    /// No HTTP client for the emulator could be made.
    #[error("could not make a client for the AWS emulator")]
    Client(#[from] reqwest::Error),
    /// The emulator did not answer.
    #[error("could not take the cluster's identity from the AWS emulator")]
    Emulator(#[source] WorldError),
}

/// A stand-in that has its port and its authority, and does not answer yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    endpoint: String,
    acceptor: TlsAcceptor,
    ca_pem: String,
    ca_path: PathBuf,
    region: String,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Another name of the API server, which only a proxy knows: it does not resolve.
pub(crate) const BEHIND_PROXY: &str = "api.behind-proxy.invalid";

/// Takes a port and makes the cluster's authority.
///
/// # Errors
///
/// When the address is not free, or `ca.crt` cannot be written.
pub async fn bind(config: StandinConfig) -> Result<Bound, StandinError> {
    let StandinConfig { listen, dir, region } = config;
    let failed = |source| StandinError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let authority = Authority::new("kubernetes")?;
    let loopback = [Ipv4Addr::LOCALHOST.into()];
    let names = ["localhost", BEHIND_PROXY];
    let acceptor = authority.server("kube-apiserver", &names, &loopback)?.acceptor()?;
    let ca_path = dir.join("ca.crt");
    write(&ca_path, authority.ca_pem.as_bytes())?;
    let endpoint = format!("https://localhost:{}", address.port());
    Ok(Bound { listener, address, endpoint, acceptor, ca_pem: authority.ca_pem, ca_path, region })
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
        &self.ca_pem
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
    /// When the emulator does not answer.
    pub async fn serve(self, emulator_url: impl AsRef<str>) -> Result<Handle, StandinError> {
        let emulator = Emulator::new(emulator_url.as_ref())?;
        emulator.observe().await.map_err(StandinError::Emulator)?;
        Ok(self.serve_world(Arc::new(emulator), Timing::default()))
    }

    /// Serves the cluster of any world.
    pub(super) fn serve_world(self, world: Arc<dyn World>, timing: Timing) -> Handle {
        let (mode, receiver) = watch::channel(Mode::Open);
        let server = Arc::new(ApiServer {
            store: Arc::new(Store::default()),
            watcher: Watcher::new(world),
            authenticator: Authenticator::default(),
            remembered: service::Remembered::default(),
            region: self.region,
            cut_off: Mutex::default(),
            clocks: Mutex::default(),
        });
        let controllers = workloads::run(Arc::clone(&server), timing, receiver.clone());
        let serving = listener::run(
            self.listener,
            self.address,
            self.acceptor,
            Arc::clone(&server),
            receiver,
        );
        let task = tokio::spawn(async move {
            tokio::join!(serving, controllers);
        });
        let shared = Shared {
            endpoint: self.endpoint,
            ca_pem: self.ca_pem,
            server,
            mode,
            task: Mutex::new(Some(task)),
        };
        Handle(Arc::new(shared))
    }
}

#[derive(Debug)]
struct Shared {
    endpoint: String,
    ca_pem: String,
    server: Arc<ApiServer>,
    mode: watch::Sender<Mode>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Stopped);
    }
}

/// A serving stand-in. It ends when the last clone is dropped.
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

    /// Every Node object.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        self.0.server.store.list(&NODES, "").objects.iter().map(|node| NodeView::of(node)).collect()
    }

    /// The available replicas of a Deployment; 0 when there is none of that name.
    #[must_use]
    pub fn available(&self, namespace: &str, deployment: &str) -> u32 {
        let found = self.0.server.store.get(&DEPLOYMENTS, namespace, deployment);
        found.map_or(0, |found| available_replicas(&found))
    }

    /// Closes the listener and every connection, or listens again on the same port.
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
    pub fn publish(&self, slices: &[Value]) {
        let store = &self.0.server.store;
        let present = store.list(&RESOURCESLICES, "").objects;
        let plan = dra_driver_double::plan(slices, present.iter().map(AsRef::as_ref));
        for slice in plan.apply {
            let name = slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let spec = slice["spec"].clone();
            let replaced = store.update(&RESOURCESLICES, "", &name, |current| {
                let mut next = current.clone();
                next["spec"] = spec;
                Ok(next)
            });
            if replaced.is_err() && store.create(&RESOURCESLICES, "", slice).is_err() {
                tracing::debug!(name, "a ResourceSlice was made by somebody else meanwhile");
            }
        }
        for name in plan.delete {
            // Gone already is gone.
            let _ = store.delete(&RESOURCESLICES, "", &name);
        }
    }

    /// Leaves every request that carries this instance's token without an answer.
    pub fn cut_off(&self, instance_id: &str, cut: bool) {
        let cut_off = &self.0.server.cut_off;
        let mut cut_off = cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        if cut {
            cut_off.insert(instance_id.to_owned());
        } else {
            cut_off.remove(instance_id);
        }
    }

    /// The server's clock is ahead of this instance's by so many seconds.
    pub fn set_clock(&self, instance_id: &str, ahead: Option<i64>) {
        let clocks = &self.0.server.clocks;
        let mut clocks = clocks.lock().unwrap_or_else(PoisonError::into_inner);
        match ahead {
            Some(seconds) => clocks.insert(instance_id.to_owned(), seconds),
            None => clocks.remove(instance_id),
        };
    }

    /// Ends serving; returns once the listener is closed.
    pub async fn stop(&self) {
        self.0.mode.send_replace(Mode::Stopped);
        let task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(error = %error, "the stand-in's task failed");
        }
    }
}
