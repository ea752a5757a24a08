//! The control plane's programs as children of the lab: etcd, API server, controllers, scheduler.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::RealError;
use super::api::Api;
use super::parts::Parts;
use super::pki::Pki;
use crate::kubernetes::authority::write;

/// From the first process to an API server that is ready; it takes 4 s on two idle cores.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How often readiness is asked for.
const POLL: Duration = Duration::from_millis(100);
/// How long a program may take to end before it is killed.
const END_WITHIN: Duration = Duration::from_secs(3);

/// How the programs are to run.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) parts: &'a Parts,
    pub(super) pki: &'a Pki,
    /// Where data and logs go.
    pub(super) dir: &'a Path,
    /// Where the API server listens.
    pub(super) api: SocketAddr,
    /// Where clients find it.
    pub(super) endpoint: SocketAddr,
    /// Where tokens are reviewed.
    pub(super) webhook: SocketAddr,
    pub(super) service_cidr: &'a str,
}

/// A control plane that runs.
#[derive(Debug)]
pub(super) struct Programs {
    running: Vec<Program>,
}

#[derive(Debug)]
struct Program {
    name: &'static str,
    child: Child,
}

impl Programs {
    /// Starts etcd and the API server side by side, and what needs them once they are ready.
    pub(super) async fn start(layout: &Layout<'_>, api: &Api) -> Result<Self, RealError> {
        let began = Instant::now();
        write_configurations(layout)?;
        let (etcd_client, etcd_peer) = (free_port().await?, free_port().await?);
        let mut programs = Self { running: Vec::new() };
        let etcd = layout.parts.path("etcd-server")?.to_owned();
        programs.run("etcd", etcd, etcd_flags(layout, etcd_client, etcd_peer), layout)?;
        programs.run_kubernetes("kube-apiserver", api_server_flags(layout, etcd_client), layout)?;
        programs.until_ready(api, layout).await?;
        programs.run_kubernetes("kube-controller-manager", controller_flags(layout), layout)?;
        programs.run_kubernetes("kube-scheduler", scheduler_flags(layout), layout)?;
        let took = began.elapsed().as_secs_f32();
        tracing::info!(
            seconds = took,
            parts = layout.parts.description(),
            "control plane is ready"
        );
        Ok(programs)
    }

    fn run_kubernetes(
        &mut self,
        name: &'static str,
        flags: Vec<String>,
        layout: &Layout<'_>,
    ) -> Result<(), RealError> {
        let program = layout.parts.kubernetes(name)?;
        self.run(name, program, flags, layout)
    }

    fn run(
        &mut self,
        name: &'static str,
        program: PathBuf,
        flags: Vec<String>,
        layout: &Layout<'_>,
    ) -> Result<(), RealError> {
        let log = layout.dir.join(format!("{name}.log"));
        let failed = |source| RealError::Start { name, source };
        let output = File::create(&log).map_err(failed)?;
        let child = Command::new(program)
            .args(flags)
            .current_dir(layout.dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        self.running.push(Program { name, child });
        Ok(())
    }

    async fn until_ready(&mut self, api: &Api, layout: &Layout<'_>) -> Result<(), RealError> {
        let deadline = Instant::now() + READY_WITHIN;
        while !api.is_ready().await {
            if let Some((name, status)) = self.ended() {
                let log = layout.dir.join(format!("{name}.log"));
                return Err(RealError::Ended { name, status, last: last_line(&log) });
            }
            if Instant::now() >= deadline {
                let log = layout.dir.join("kube-apiserver.log");
                return Err(RealError::NotReady { within: READY_WITHIN, last: last_line(&log) });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// A program that has ended by itself.
    pub(super) fn ended(&mut self) -> Option<(&'static str, ExitStatus)> {
        self.running.iter_mut().find_map(|program| {
            let status = program.child.try_wait().ok().flatten()?;
            Some((program.name, status))
        })
    }

    /// Ends all, those that were started last first.
    pub(super) async fn end(mut self) {
        while let Some(mut program) = self.running.pop() {
            if let Some(pid) = program.child.id() {
                // A program that ends by itself meanwhile is what was wanted.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
            }
            if tokio::time::timeout(END_WITHIN, program.child.wait()).await.is_err() {
                tracing::info!(program = program.name, "did not end in time and is killed");
                if let Err(error) = program.child.kill().await {
                    tracing::warn!(program = program.name, %error, "could not be killed");
                }
            }
        }
    }
}

/// A port of this machine that nobody listens on. Somebody may take it before its program does:
/// that program then says so and ends.
async fn free_port() -> Result<u16, RealError> {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let failed = |source| RealError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.port())
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing logged").to_owned()
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn path(path: &Path) -> std::path::Display<'_> {
    path.display()
}

fn etcd_flags(layout: &Layout<'_>, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    vec![
        flag("name", "lab"),
        flag("data-dir", path(&layout.dir.join("etcd"))),
        flag("listen-client-urls", &client),
        flag("advertise-client-urls", &client),
        flag("listen-peer-urls", &peer),
        flag("initial-advertise-peer-urls", &peer),
        flag("initial-cluster", format!("lab={peer}")),
        // A lab's data do not outlive a power cut.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn api_server_flags(layout: &Layout<'_>, etcd: u16) -> Vec<String> {
    let file = |name: &str| layout.pki.file(name).display().to_string();
    // The Service `kubernetes` may not point to loopback; there is none then.
    let reconciler = if layout.endpoint.ip().is_loopback() { "none" } else { "lease" };
    vec![
        flag("etcd-servers", format!("http://127.0.0.1:{etcd}")),
        flag("bind-address", layout.api.ip()),
        flag("secure-port", layout.api.port()),
        flag("advertise-address", layout.endpoint.ip()),
        flag("endpoint-reconciler-type", reconciler),
        flag("service-cluster-ip-range", layout.service_cidr),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("allow-privileged", true),
        flag("client-ca-file", path(&layout.pki.ca())),
        flag("tls-cert-file", file("server.crt")),
        flag("tls-private-key-file", file("server.key")),
        flag("kubelet-client-certificate", file("kubelet-client.crt")),
        flag("kubelet-client-key", file("kubelet-client.key")),
        flag("kubelet-preferred-address-types", "InternalIP"),
        flag("service-account-issuer", "https://kubernetes.default.svc"),
        flag("service-account-key-file", file("service-account.pub")),
        flag("service-account-signing-key-file", file("service-account.key")),
        flag("authentication-config", path(&layout.dir.join("authentication.json"))),
        flag("authentication-token-webhook-config-file", path(&layout.dir.join("webhook.json"))),
        flag("authentication-token-webhook-version", "v1"),
        // A revoked access entry is to be seen within moments.
        flag("authentication-token-webhook-cache-ttl", "1s"),
        flag("profiling", false),
        flag("shutdown-delay-duration", "0s"),
    ]
}

fn controller_flags(layout: &Layout<'_>) -> Vec<String> {
    let file = |name: &str| layout.pki.file(name).display().to_string();
    vec![
        flag("kubeconfig", path(&layout.dir.join("controller-manager.json"))),
        flag("controllers", "*"),
        // Each controller as its own service account, with the rights that its role gives.
        flag("use-service-account-credentials", true),
        flag("leader-elect", false),
        flag("secure-port", 0),
        flag("root-ca-file", file("ca.crt")),
        flag("service-account-private-key-file", file("service-account.key")),
        flag("cluster-signing-cert-file", file("ca.crt")),
        flag("cluster-signing-key-file", file("ca.key")),
        flag("node-monitor-period", "2s"),
        // The default is 50 s; tests wait for a silent node.
        flag("node-monitor-grace-period", "20s"),
    ]
}

fn scheduler_flags(layout: &Layout<'_>) -> Vec<String> {
    vec![
        flag("kubeconfig", path(&layout.dir.join("scheduler.json"))),
        flag("leader-elect", false),
        flag("secure-port", 0),
    ]
}

/// Who may ask without a token: probes. EKS restricts it so from Kubernetes 1.32 on, all others get 401.
fn authentication() -> serde_json::Value {
    let open = ["/livez", "/readyz", "/healthz"].map(|path| serde_json::json!({"path": path}));
    serde_json::json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": true, "conditions": open},
    })
}

/// kubeconfigs of the controllers and of the webhook, and who is let in; JSON is YAML.
fn write_configurations(layout: &Layout<'_>) -> Result<(), RealError> {
    let config = layout.dir.join("authentication.json");
    write(&config, authentication().to_string().as_bytes())?;
    let server = format!("https://{}", layout.api);
    for name in ["controller-manager", "scheduler"] {
        let cluster =
            serde_json::json!({"server": server, "certificate-authority": layout.pki.ca()});
        let user = serde_json::json!({
            "client-certificate": layout.pki.file(&format!("{name}.crt")),
            "client-key": layout.pki.file(&format!("{name}.key")),
        });
        save_kubeconfig(&layout.dir.join(format!("{name}.json")), &cluster, &user)?;
    }
    let cluster = serde_json::json!({"server": format!("http://{}/", layout.webhook)});
    save_kubeconfig(&layout.dir.join("webhook.json"), &cluster, &serde_json::json!({}))
}

fn save_kubeconfig(
    path: &Path,
    cluster: &serde_json::Value,
    user: &serde_json::Value,
) -> Result<(), RealError> {
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "lab", "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    });
    Ok(write(path, config.to_string().as_bytes())?)
}
