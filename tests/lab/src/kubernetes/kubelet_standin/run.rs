//! Kubelet's life: health, registration, then a loop over network, pods, devices and status.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::api::{Api, CallError};
use super::cni::{self, Daemon};
use super::gpus::{self, Offer, ProbeError};
use super::imds::Imds;
use super::klog;
use super::knobs::Knobs;
use super::node::{self, Facts, Machine};
use super::pods::{self, Pods, Role, State, Track};
use super::settings::Settings;
use super::{KubeletError, KubeletOptions};

const HEALTH_PORT: u16 = 10248;
const TICK: Duration = Duration::from_millis(250);
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// kubelet's own registration backoff.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(7);
/// After a silence this long, somebody may have written `Unknown` over our conditions.
const TRUST_OWN_STATUS: Duration = Duration::from_secs(10);

/// Runs until SIGTERM.
pub(in crate::kubernetes) async fn run(options: &KubeletOptions) -> Result<(), KubeletError> {
    let failed = |what| move |source| KubeletError::Start { what, source };
    let mut terminate =
        signal(SignalKind::terminate()).map_err(failed("listen for the stop signal"))?;
    let settings = Settings::read(options)?;
    klog::info("server.go:213", "Kubelet version", &[("kubeletVersion", &settings.version)]);
    let address = SocketAddr::new(options.address, HEALTH_PORT);
    let listener = tokio::net::TcpListener::bind(address).await;
    let health = serve_health(listener.map_err(failed("listen for health checks"))?);
    let imds = Imds::new(&options.imds).map_err(|error| KubeletError::Client(error.to_string()))?;
    let api = Api::new(settings.access.clone(), options.proxy.as_deref(), imds.clone())?;
    let instance_type = imds.meta_data("instance-type").await.unwrap_or_default();
    let local_ip = imds.meta_data("local-ipv4").await.unwrap_or_default();
    let machine = Machine::read(&options.root, &instance_type);
    let mut kubelet = Kubelet {
        options: options.clone(),
        address: settings.node_ip.clone().unwrap_or(local_ip),
        settings,
        machine,
        api,
        daemon: Daemon::default(),
        tracks: BTreeMap::new(),
        last_offer: None,
        conditions: Vec::new(),
        written: None,
    };
    tokio::select! {
        _ = terminate.recv() => {
            klog::info("server.go:1", "Received signal, stopping", &[("signal", "SIGTERM")]);
            Ok(())
        }
        never = kubelet.live() => match never {},
        never = health => match never {},
    }
}

async fn serve_health(listener: tokio::net::TcpListener) -> Infallible {
    let router = axum::Router::new().route("/healthz", axum::routing::get(|| async { "ok" }));
    if let Err(error) = axum::serve(listener, router).await {
        klog::error("server.go:1", "Health server ended", &[("err", &error.to_string())]);
    }
    std::future::pending().await
}

struct Kubelet {
    options: KubeletOptions,
    settings: Settings,
    machine: Machine,
    address: String,
    api: Api,
    daemon: Daemon,
    tracks: BTreeMap<String, Track>,
    /// What the device plugin has registered with us; it stays known when the plugin goes.
    last_offer: Option<Offer>,
    conditions: Vec<Value>,
    /// The last status that was accepted, and when.
    written: Option<(Value, Instant)>,
}

impl Kubelet {
    async fn live(&mut self) -> Infallible {
        self.register().await;
        let (sender, mut bound) = watch::channel(Pods::new());
        let follow = pods::follow(self.api.clone(), self.settings.node_name.clone(), sender);
        let (plugin_runs, plugin) = watch::channel(false);
        let (offers, offer) = watch::channel(None);
        let probes = gpus::watch(self.options.root.clone(), plugin, offers, PROBE_EVERY);
        let work = async {
            loop {
                let known = bound.borrow_and_update().clone();
                self.pass(&known, &plugin_runs, &offer).await;
                // A change or the next tick: either way there may be work.
                let _elapsed = tokio::time::timeout(TICK, bound.changed()).await;
            }
        };
        tokio::select! {
            never = work => never,
            never = follow => never,
            never = probes => never,
        }
    }

    fn now() -> String {
        Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Creates the Node object, or adopts the one that an earlier kubelet of this node left.
    async fn register(&mut self) {
        let mut pause = FIRST_RETRY;
        loop {
            let name = self.settings.node_name.clone();
            let name = name.as_str();
            klog::info(
                "kubelet_node_status.go:75",
                "Attempting to register node",
                &[("node", name)],
            );
            match self.try_register().await {
                Ok(()) => {
                    let text = "Successfully registered node";
                    klog::info("kubelet_node_status.go:78", text, &[("node", name)]);
                    return;
                }
                Err(error) => {
                    let text = "Unable to register node with API server";
                    let error = error.to_string();
                    let fields = [("err", error.as_str()), ("node", name)];
                    klog::error("kubelet_node_status.go:107", text, &fields);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    async fn try_register(&mut self) -> Result<(), CallError> {
        let object = node::object(&self.settings, &self.machine, self.facts(), &Self::now());
        match self.api.create("/api/v1/nodes", &object).await {
            Err(error) if error.code() == 409 => {}
            Err(error) => return Err(error),
            Ok(node) => {
                self.remember(&node);
                return Ok(());
            }
        }
        let path = format!("/api/v1/nodes/{}", self.settings.node_name);
        let node = self.api.get(&path).await?;
        self.remember(&node);
        // As kubelet does: its labels are put right, its taints are left as they are.
        let labels = json!({"metadata": {"labels": object["metadata"]["labels"]}});
        self.api.patch(&path, &labels).await?;
        Ok(())
    }

    fn remember(&mut self, node: &Value) {
        self.conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            address: &self.address,
            network_ready: cni::network_ready(&self.options.root),
            gpus: self.last_offer.as_ref(),
        }
    }

    /// One round: pods first, as the network may come up through them, then status and lease.
    async fn pass(
        &mut self,
        known: &Pods,
        plugin_runs: &watch::Sender<bool>,
        offer: &watch::Receiver<Option<Result<Offer, ProbeError>>>,
    ) {
        let knobs = Knobs::read(&self.options.root).unwrap_or_else(|error| {
            klog::error("knobs.rs", "Ignoring unreadable knobs", &[("err", &error)]);
            Knobs::default()
        });
        let offer = offer.borrow().clone();
        self.run_pods(known, &knobs, offer.as_ref()).await;
        let role_runs = |role: Role| {
            known.iter().any(|(uid, pod)| {
                let state = self.tracks.get(uid).and_then(|track| track.state.as_ref());
                let started = matches!(state, Some(State::Running { .. } | State::Crashing { .. }));
                Role::of(pod) == role && started
            })
        };
        let plugin = role_runs(Role::DevicePlugin) && !knobs.device_plugin_held;
        plugin_runs.send_if_modified(|runs| std::mem::replace(runs, plugin) != plugin);
        let offered = |whole: Offer| Offer {
            allocatable: whole.allocatable.min(knobs.gpus_offered.unwrap_or(u32::MAX)),
            ..whole
        };
        let said = offer.clone().map(|said| said.map(|offer| offer.by(knobs.mig_strategy)));
        let known = self.last_offer.take();
        self.last_offer = on_offer(known, plugin, said.as_ref()).map(offered);
        if !knobs.status_held {
            self.write_status(&knobs).await;
        }
    }

    async fn run_pods(
        &mut self,
        known: &Pods,
        knobs: &Knobs,
        offer: Option<&Result<Offer, ProbeError>>,
    ) {
        let now = Instant::now();
        self.tracks.retain(|uid, _| known.contains_key(uid));
        if !known.values().any(|pod| Role::of(pod) == Role::Network) {
            self.daemon.reset();
        }
        for (uid, pod) in known {
            let track = self.tracks.entry(uid.clone()).or_insert_with(|| Track::new(pod, now));
            let age = now.duration_since(track.since);
            let role_ready = match Role::of(pod) {
                Role::Network if age < knobs.pod_start() => Ok(false),
                Role::Network => Ok(self.daemon.step(&self.options.root, knobs, now)),
                Role::DevicePlugin => match offer {
                    Some(Err(error @ ProbeError::Init(_))) => Err(error.to_string()),
                    Some(_) => Ok(true),
                    None => Ok(false),
                },
                Role::Other => Ok(true),
            };
            let network_ready = cni::network_ready(&self.options.root);
            let state = pods::state(pod, age, knobs.pod_start(), network_ready, &role_ready);
            self.report_pod(uid, pod, state).await;
        }
    }

    async fn report_pod(&mut self, uid: &str, pod: &Value, state: State) {
        let Some(track) = self.tracks.get_mut(uid) else { return };
        let status = pods::status(pod, &state, &self.address, &track.reported, &Self::now());
        track.state = Some(state);
        if status == track.reported {
            return;
        }
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", text("namespace"), text("name"));
        match self.api.patch(&path, &json!({"status": status})).await {
            Ok(_) => track.reported = status,
            // Deleted in between: the watch will say so.
            Err(error) if error.code() == 404 => {}
            Err(error) => {
                let (error, name) = (error.to_string(), text("name"));
                let fields = [("err", error.as_str()), ("pod", name)];
                klog::error("status_manager.go:902", "Failed to update status for pod", &fields);
            }
        }
    }

    /// Writes the status when it says something new or a heartbeat is due, and the lease with it.
    async fn write_status(&mut self, knobs: &Knobs) {
        let silence = self.written.as_ref().map(|(_, at)| at.elapsed());
        if silence.is_some_and(|silence| silence > TRUST_OWN_STATUS) {
            self.refresh_conditions().await;
        }
        let now = Self::now();
        let status =
            node::status(&self.settings, &self.machine, self.facts(), &self.conditions, &now);
        let essence = node::without_heartbeat(&status);
        let due = self
            .written
            .as_ref()
            .is_none_or(|(known, at)| *known != essence || at.elapsed() >= knobs.heartbeat());
        if !due {
            return;
        }
        let path = format!("/api/v1/nodes/{}/status", self.settings.node_name);
        match self.api.patch(&path, &json!({"status": status})).await {
            Ok(node) => {
                self.remember(&node);
                self.written = Some((essence, Instant::now()));
                self.renew_lease().await;
            }
            Err(error) => {
                let text = "Error updating node status, will retry";
                let error = error.to_string();
                klog::error("kubelet_node_status.go:548", text, &[("err", &error)]);
            }
        }
    }

    async fn refresh_conditions(&mut self) {
        let path = format!("/api/v1/nodes/{}", self.settings.node_name);
        if let Ok(node) = self.api.get(&path).await {
            self.remember(&node);
        }
    }

    async fn renew_lease(&self) {
        let name = self.settings.node_name.as_str();
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let renewed = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let spec =
            json!({"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed});
        let patch = json!({"spec": spec});
        let done = match self.api.patch(&format!("{leases}/{name}"), &patch).await {
            Err(error) if error.code() == 404 => {
                let lease = json!({"metadata": {"name": name, "namespace": "kube-node-lease"},
                    "spec": spec});
                self.api.create(leases, &lease).await
            }
            other => other,
        };
        if let Err(error) = done {
            let error = error.to_string();
            klog::error("controller.go:145", "Failed to ensure lease exists", &[("err", &error)]);
        }
    }
}

/// What kubelet offers, given what the plugin says now. Once it was offered, the resource stays, with
/// nothing of it when the plugin is gone or fails; a driver that hangs changes nothing. Pure.
fn on_offer(
    known: Option<Offer>,
    plugin_runs: bool,
    said: Option<&Result<Offer, ProbeError>>,
) -> Option<Offer> {
    let nothing = |known: Option<Offer>| {
        known.map(|known| {
            let parts = known.parts.into_keys().map(|profile| (profile, 0)).collect();
            Offer { allocatable: 0, parts, ..known }
        })
    };
    match said {
        _ if !plugin_runs => nothing(known),
        None | Some(Err(ProbeError::Hang)) => known,
        Some(Err(ProbeError::Init(_))) => nothing(known),
        Some(Ok(offer)) => Some(offer.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_on_offer_only_through_a_plugin_that_works() {
        let eight = || Offer::whole(8, 8);
        let none = Offer::whole(8, 0);
        let init = Err(ProbeError::Init("x".into()));
        let table = [
            (None, false, Some(Ok(eight())), None),
            (None, true, None, None),
            (None, true, Some(Ok(eight())), Some(eight())),
            (None, true, Some(init.clone()), None),
            (Some(eight()), true, Some(init), Some(none.clone())),
            (Some(eight()), true, Some(Err(ProbeError::Hang)), Some(eight())),
            (Some(eight()), false, Some(Ok(eight())), Some(none)),
        ];
        for (known, runs, said, expected) in table {
            let offer = on_offer(known.clone(), runs, said.as_ref());
            assert_eq!(offer, expected, "{known:?} {runs} {said:?}");
        }
    }
}
