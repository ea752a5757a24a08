//! The whole join against doubles at its process boundaries: the metadata service, the API server,
//! AWS, and a directory with a `systemctl` that behaves as PID 1 does towards our units.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::JoinReport;
use contract::join_report::{JoinOutcome, PhaseState};
use contract::names::{ADMITTED_PATH, REPORT_PATH};

use super::*;
use crate::aws::{AwsClient, Endpoints, Imds, RoleCredentials};
use crate::host::systemd::Systemd;
use crate::host::{Deadline, files};
use crate::testing::http::{Answer, Server};
use crate::testing::imds_answers;
use crate::testing::tls::Authority;

mod canaries;
mod configuration;
mod full_disk;
mod lives;
mod look;

/// Runs nodeadm's phases as files, refuses kubelet without admission, and keeps a list of starts.
const SYSTEMCTL: &str = r#"#!/bin/sh
R=ROOT
case "$1 $2" in
"start rollcall-nodeadm@config.service")
  echo config >>$R/starts
  [ -e $R/config-fails ] && exit 1
  cp $R/kubeconfig.want $R/var/lib/kubelet/kubeconfig
  echo 'NODEADM_KUBELET_ARGS=--hostname-override=ip-10-0-1-7.ec2.internal' >$R/etc/eks/kubelet/environment
  echo '{}' >$R/etc/kubernetes/kubelet/config.json ;;
"start rollcall-nodeadm@run.service")
  [ -e $R/run/rollcall-gate/admitted ] || { echo 'Assertion failed' >&2; exit 1; }
  echo run >>$R/starts
  touch $R/kubelet-runs ;;
esac
[ "$1" = show ] || exit 0
shift 3
between=
for unit; do
  printf "$between"; between='\n'
  case "$unit" in
  kubelet.service)
    echo LoadState=loaded
    [ -e $R/kubelet-runs ] && echo ActiveState=active || echo ActiveState=inactive ;;
  *config.service)
    echo LoadState=loaded
    if [ -e $R/config-fails ]; then
      echo ActiveState=failed; echo Result=exit-code; echo ExecMainStatus=1
    else echo ActiveState=inactive; fi ;;
  cloud-final.service)
    [ -e $R/scripts-run ] && { echo LoadState=loaded; echo ActiveState=activating; } \
      || { echo LoadState=not-found; echo ActiveState=inactive; } ;;
  *) echo LoadState=not-found; echo ActiveState=inactive ;;
  esac
done
exit 0
"#;

const ECR_PROVIDER: &str = "/etc/eks/image-credential-provider/ecr-credential-provider";

const JOURNALCTL: &str =
    "#!/bin/sh\necho 'fatal cli/main.go:35 Command failed {\"error\": \"no such luck\"}'\n";

struct World {
    dir: tempfile::TempDir,
    imds: Server,
    api: Server,
    aws: Server,
}

impl World {
    async fn new(gpus: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let authority = Authority::new();
        let marker = root.path("/kubelet-runs");
        let api = Server::start_tls(&authority, move |request| api(request, marker.exists())).await;
        let user_data = user_data(&api.url(), &authority.ca_pem, gpus);
        let said = root.path("/imds");
        let imds = Server::start(move |request| match request.split(' ').nth(1) {
            Some("/latest/user-data") => Answer::ok(user_data.clone()),
            // What a test has EC2 say: a file under the path's last part.
            Some(path) => match std::fs::read(said.join(path.rsplit('/').next().unwrap_or("-"))) {
                Ok(text) => Answer::ok(text),
                Err(_) => imds_answers(request),
            },
            None => imds_answers(request),
        })
        .await;
        let aws = Server::start(|_| Answer::ok("{\"Version\":1}")).await;
        furnish(&root, &api.url(), &authority.ca_pem);
        Self { dir, imds, api, aws }
    }

    fn root(&self) -> Root {
        Root::new(self.dir.path())
    }

    fn node(&self) -> Node {
        let imds = Arc::new(Imds::at(&self.imds.url()));
        Node {
            root: self.root(),
            boot: "boot-1".into(),
            credentials: RoleCredentials::new(Arc::clone(&imds)),
            imds,
            endpoints: Endpoints::all_at(self.aws.url()),
            systemd: Systemd::new(self.root()),
            http: AwsClient::plain(),
            way: crate::phases::configure::proxy::WayToAws::default(),
        }
    }

    /// One proving by a process that has just started.
    async fn prove(&self) -> (bool, JoinReport) {
        let node = self.node();
        let recorder = Recorder::new(self.root(), &node.boot);
        let open = Box::pin(Walk::new(&node, &recorder).once()).await.is_ok();
        (open, self.report())
    }

    fn report(&self) -> JoinReport {
        serde_json::from_slice(&files::read(&self.root().path(REPORT_PATH)).unwrap()).unwrap()
    }

    /// What PID 1 was asked to start, in order.
    fn starts(&self) -> Vec<String> {
        let text = files::read_text(&self.root().path("/starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn is_admitted(&self) -> bool {
        self.root().path(ADMITTED_PATH).exists()
    }
}

fn api(request: &str, kubelet_runs: bool) -> Answer {
    match request.split(' ').nth(1).unwrap_or_default() {
        "/apis/authentication.k8s.io/v1/selfsubjectreviews" => Answer::status(
            201,
            r#"{"status":{"userInfo":{"username":"system:node:ip-10-0-1-7.ec2.internal",
                "groups":["system:bootstrappers","system:nodes"]}}}"#,
        ),
        "/api/v1/nodes/ip-10-0-1-7.ec2.internal" if kubelet_runs => Answer::ok(
            r#"{"status":{"nodeInfo":{"bootID":"boot-1"},
                "conditions":[{"type":"Ready","status":"True"}]}}"#,
        ),
        "/apis/apps/v1/namespaces/kube-system/daemonsets/aws-node" => Answer::ok("{}"),
        _ => Answer::status(404, r#"{"message":"not found"}"#),
    }
}

fn user_data(endpoint: &str, ca_pem: &str, gpus: u32) -> String {
    format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n\
         --B\nContent-Type: text/cloud-config\n\nwrite_files:\n- path: /etc/rollcall/agent.yaml\n  \
         content: '{{version: 1, cluster: prod, pool: h100, gpus: {{count: {gpus}}}, \
         deadlines: {{phaseSeconds: {{drivers: 2}}}}}}'\n\n\
         --B\nContent-Type: application/node.eks.aws\n\n\
         apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: prod\n    \
         apiServerEndpoint: {endpoint}\n    certificateAuthority: {}\n    cidr: 172.20.0.0/16\n--B--\n",
        STANDARD.encode(ca_pem)
    )
}

/// What an image and PID 1 bring.
fn furnish(root: &Root, endpoint: &str, ca_pem: &str) {
    let here = root.as_path().display().to_string();
    for directory in [
        "/usr/bin",
        "/opt/cni/bin",
        "/dev",
        "/sys/bus/pci/devices",
        "/var/lib/kubelet",
        "/etc/eks/kubelet",
        "/etc/eks/image-credential-provider",
        "/etc/kubernetes/kubelet",
        "/etc/kubernetes/pki",
    ] {
        std::fs::create_dir_all(root.path(directory)).unwrap();
    }
    let executable = |path: &str, text: &str| {
        std::fs::write(root.path(path), text).unwrap();
        std::fs::set_permissions(root.path(path), Permissions::from_mode(0o755)).unwrap();
    };
    executable("/usr/bin/systemctl", &SYSTEMCTL.replace("ROOT", &here));
    executable("/usr/bin/journalctl", JOURNALCTL);
    for program in [
        "/usr/bin/nodeadm",
        "/usr/bin/kubelet",
        "/usr/bin/containerd",
        "/usr/bin/runc",
        ECR_PROVIDER,
    ] {
        executable(program, "#!/bin/sh\n");
    }
    for plugin in ["loopback", "host-local", "portmap"] {
        executable(&format!("/opt/cni/bin/{plugin}"), "");
    }
    std::fs::write(root.path("/dev/console"), "").unwrap();
    std::fs::write(root.path("/etc/kubernetes/pki/ca.crt"), ca_pem).unwrap();
    let kubeconfig = format!(
        "clusters: [{{cluster: {{certificate-authority: /etc/kubernetes/pki/ca.crt, server: '{endpoint}'}}}}]\n\
         users: [{{user: {{exec: {{args: [--cluster-name, prod, --region, us-east-1]}}}}}}]\n"
    );
    std::fs::write(root.path("/kubeconfig.want"), kubeconfig).unwrap();
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = Deadline::within(Duration::from_secs(20));
    while !condition() {
        assert!(!deadline.has_passed(), "it did not come to pass");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_healthy_node_joins() {
    let world = World::new(0).await;
    let (open, report) = world.prove().await;
    assert!(open, "{report:#?}");
    assert_eq!(report.outcome, JoinOutcome::Ready);
    assert_eq!(report.reasons, []);
    assert_eq!(report.instance.name, "ip-10-0-1-7.ec2.internal");
    let states: Vec<_> = report.phases.iter().map(|p| p.state).collect();
    let mut expected = vec![PhaseState::Passed; 8];
    expected[3] = PhaseState::Skipped;
    assert_eq!(states, expected);
    assert_eq!(world.starts(), ["config", "run"]);
    assert!(world.is_admitted());
    until(|| world.aws.requests().iter().any(|r| r.contains("Tag.1.Value=ready"))).await;
}

#[tokio::test]
async fn a_restart_on_a_ready_node_touches_nothing() {
    let world = World::new(0).await;
    world.prove().await;
    let (open, report) = world.prove().await;
    assert!(open);
    assert_eq!((report.outcome, report.attempt), (JoinOutcome::Ready, 2));
    assert_eq!(world.starts(), ["config", "run"], "nothing was started a second time");
}

#[tokio::test]
async fn kubelet_never_starts_behind_a_closed_gate() {
    let world = World::new(8).await;
    let (open, report) = world.prove().await;
    assert!(!open);
    assert_eq!(report.outcome, JoinOutcome::Failed);
    assert_eq!(report.cause().unwrap().reason.as_str(), "GpuAbsent");
    assert_eq!(world.starts(), ["config"]);
    assert!(!world.is_admitted());
    let console = files::read_text(&world.root().path("/dev/console")).unwrap();
    assert_eq!(contract::ConsoleLine::last_in(&console).unwrap().outcome, JoinOutcome::Failed);
    let put = |r: &String| r.contains("AmazonSSM.PutParameter") && r.contains("reason=GpuAbsent");
    until(|| world.aws.requests().iter().any(put)).await;
}

#[tokio::test]
async fn nodeadms_own_words_reach_the_report() {
    let world = World::new(0).await;
    std::fs::write(world.root().path("/config-fails"), "").unwrap();
    let (open, report) = world.prove().await;
    assert!(!open);
    let cause = report.cause().unwrap();
    assert_eq!(cause.reason.as_str(), "NodeadmConfigFailed");
    assert!(cause.summary.ends_with("no such luck"), "{}", cause.summary);
    assert!(!world.is_admitted());

    std::fs::remove_file(world.root().path("/config-fails")).unwrap();
    let (open, report) = world.prove().await;
    assert!(open, "a repaired node joins: {report:#?}");
    assert_eq!(world.starts(), ["config", "config", "run"]);
}

#[tokio::test]
async fn a_crash_between_admission_and_kubelet_goes_on_where_it_stopped() {
    let world = World::new(0).await;
    world.prove().await;
    // As if the process had died right after it wrote `admitted`: kubelet does not run yet.
    std::fs::remove_file(world.root().path("/kubelet-runs")).unwrap();
    let (open, _) = world.prove().await;
    assert!(open);
    assert_eq!(world.starts(), ["config", "run", "run"], "configured once, started again");
}

#[tokio::test]
async fn everything_is_asked_for_with_a_token_of_this_cluster() {
    let world = World::new(0).await;
    world.prove().await;
    for request in world.api.requests() {
        assert!(request.contains("authorization: Bearer k8s-aws-v1."), "{request}");
    }
}
