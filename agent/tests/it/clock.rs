//! The wall clock steps by a day while the join waits: its deadlines are on another clock.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::join_report::{PhaseReport, PhaseState};
use contract::{JoinReport, Phase, Reason};

use crate::metadata;

/// What preflight has in these tests to wait for an EC2 that never answers.
const WAIT: Duration = Duration::from_secs(6);
const DAY: i64 = 86_400;

fn user_data() -> String {
    let ca = rcgen::generate_simple_self_signed(vec!["ca".into()]).unwrap().cert.pem();
    format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n\
         --B\nContent-Type: text/cloud-config\n\nwrite_files:\n- path: /etc/rollcall/agent.yaml\n  \
         content: '{{version: 1, cluster: prod, pool: h100, gpus: {{count: 0}}, \
         deadlines: {{phaseSeconds: {{preflight: {}}}}}}}'\n\n\
         --B\nContent-Type: application/node.eks.aws\n\n\
         apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: prod\n    \
         apiServerEndpoint: https://127.0.0.1:9\n    certificateAuthority: {}\n    \
         cidr: 172.20.0.0/16\n--B--\n",
        WAIT.as_secs(),
        STANDARD.encode(ca)
    )
}

/// Builds the clock's double; none without a C compiler.
fn clock_double(directory: &Path) -> Option<String> {
    let library = directory.join("clock_double.so").display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clock_double.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o", &library, source]).status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

/// The programs that preflight looks for: what it is to miss is EC2.
fn furnish(root: &Path) {
    for program in ["nodeadm", "kubelet", "containerd", "runc"]
        .map(|name| format!("usr/bin/{name}"))
        .into_iter()
        .chain(["etc/eks/image-credential-provider/ecr-credential-provider".to_owned()])
    {
        let path = root.join(program);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
}

struct Join(Child);

impl Drop for Join {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(root: &Path, condition: impl Fn(&JoinReport) -> bool) -> JoinReport {
    let start = Instant::now();
    loop {
        let text = std::fs::read(root.join("run/rollcall/report.json")).unwrap_or_default();
        match serde_json::from_slice::<JoinReport>(&text) {
            Ok(report) if condition(&report) => return report,
            report => assert!(start.elapsed() < Duration::from_secs(90), "{report:#?}"),
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_step_of_the_wall_clock_neither_ends_a_wait_nor_prolongs_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(library) = clock_double(dir.path()) else {
        println!("skipped: needs a C compiler for the clock's double");
        return;
    };
    for step in [DAY, -DAY] {
        let node = tempfile::tempdir().unwrap();
        furnish(node.path());
        let stepped = node.path().join("stepped");
        let _join = Join(
            Command::new(env!("CARGO_BIN_EXE_rollcall-agent"))
                .args(["join", "--root"])
                .arg(node.path())
                .env_clear()
                .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata::serve(user_data()))
                .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
                .env("LD_PRELOAD", &library)
                .env("CLOCK_STEP_FILE", &stepped)
                .env("CLOCK_STEP", step.to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let is = |report: &JoinReport, state| preflight(report).is_some_and(|p| p.state == state);
        let began = until(node.path(), |report| is(report, PhaseState::Waiting));
        std::fs::write(&stepped, "").unwrap();
        let ended = until(node.path(), |report| is(report, PhaseState::Failed));
        let day = |report: &JoinReport| report.updated[..10].to_owned();
        assert_ne!(day(&ended), day(&began), "the clock has not stepped");
        assert!(ended.reasons.iter().any(|f| f.reason == Reason::Ec2ApiUnreachable), "{ended:#?}");
        let waited = Duration::from_millis(preflight(&ended).unwrap().ms);
        assert!(waited >= WAIT / 2, "the step has ended the wait after {waited:?}");
    }
}

fn preflight(report: &JoinReport) -> Option<&PhaseReport> {
    report.phases.iter().find(|phase| phase.phase == Phase::Preflight)
}
