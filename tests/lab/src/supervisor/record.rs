//! `lab.json`: what the supervisor says of itself to the other commands.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::aws::Credentials;
use crate::directory::{DirectoryError, LabDirectory, write_atomically};
use crate::gear::{KubernetesGear, NodesGear};
use crate::processes::ProcessId;

/// How a lab was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Scale of all emulated durations; 1 is AWS's own pace.
    pub speed: f64,
    /// What serves the Kubernetes API.
    pub kubernetes: KubernetesGear,
    /// What a node is.
    pub nodes: NodesGear,
    /// Python with the emulator's packages.
    pub python: PathBuf,
    /// The emulator's package.
    pub emulator: PathBuf,
    /// `libnvml_sim.so`.
    pub nvml: Option<PathBuf>,
    /// The agent's tarball that images have baked in.
    pub baked_agent: Option<PathBuf>,
}

/// How far the lab has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Coming up.
    Starting,
    /// Everything serves.
    Serving,
    /// It could not come up; the supervisor has ended.
    Failed,
}

/// One part of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// `real`, or `stand-in: …`.
    pub kind: String,
    /// What it is.
    pub what: String,
    /// Where it serves, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its process, if it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

/// The lab as its supervisor has recorded it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// How far it has come.
    pub phase: Phase,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The supervisor.
    pub supervisor: ProcessId,
    /// When it started, RFC 3339.
    pub since: String,
    /// How it was asked for.
    pub options: Options,
    /// The supervisor's own API.
    #[serde(default)]
    pub api: String,
    /// What opens it.
    #[serde(default)]
    pub token: String,
    /// The emulator's endpoint.
    #[serde(default)]
    pub endpoint: String,
    /// The region.
    #[serde(default)]
    pub region: String,
    /// The operator's access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Credentials>,
    /// The Kubernetes API.
    #[serde(default)]
    pub kubernetes: String,
}

impl Record {
    /// Reads a lab's record; none where no lab is.
    #[must_use]
    pub fn read(directory: &LabDirectory) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(directory.record()).ok()?).ok()
    }

    /// Writes it for the user alone: it opens the lab.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, directory: &LabDirectory) -> Result<(), DirectoryError> {
        let json = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_atomically(&directory.record(), &json, 0o600)
    }

    /// The record, if its supervisor is alive.
    #[must_use]
    pub fn of_live_lab(directory: &LabDirectory) -> Option<Self> {
        Self::read(directory).filter(|record| record.supervisor.is_alive())
    }

    /// The variables that point programs at the lab, for a shell to source.
    #[must_use]
    pub fn env(&self) -> String {
        let Some(operator) = &self.operator else { return String::new() };
        format!(
            "# Points control, the AWS CLI and SDKs at this lab: source it.\n\
             unset AWS_PROFILE AWS_SESSION_TOKEN\n\
             export AWS_ENDPOINT_URL={}\n\
             export AWS_REGION={region}\n\
             export AWS_DEFAULT_REGION={region}\n\
             export AWS_ACCESS_KEY_ID={}\n\
             export AWS_SECRET_ACCESS_KEY={}\n",
            self.endpoint,
            operator.access_key_id,
            operator.secret_access_key,
            region = self.region,
        )
    }

    /// The ports that must be free again once the lab is down, as `HOST:PORT`.
    #[must_use]
    pub fn ports(&self) -> Vec<String> {
        [&self.api, &self.endpoint, &self.kubernetes]
            .into_iter()
            .filter_map(|url| {
                let url = url::Url::parse(url).ok()?;
                Some(format!("{}:{}", url.host_str()?, url.port()?))
            })
            .collect()
    }

    /// The parts, in the order in which they build on each other.
    #[must_use]
    pub fn components(&self, emulator: i32) -> Vec<(&'static str, Component)> {
        let mut components = vec![
            (
                "aws",
                Component {
                    endpoint: Some(self.endpoint.clone()),
                    pid: Some(emulator),
                    ..part("stand-in", "emulator on moto: EC2, EKS, IAM, STS, SSM, S3")
                },
            ),
            (
                "kubernetes",
                Component {
                    endpoint: Some(self.kubernetes.clone()),
                    ..match self.options.kubernetes {
                        KubernetesGear::Real => part(
                            "real",
                            "etcd, kube-apiserver, controller-manager, scheduler; doubles of EKS's webhook and cloud controller",
                        ),
                        KubernetesGear::Auto | KubernetesGear::Standin => {
                            part("stand-in", "API server and controllers")
                        }
                    }
                },
            ),
        ];
        components.extend(self.node_components());
        components.extend([
            (
                "gpus",
                part("stand-in", "nvml-sim as libnvidia-ml.so.1, called by the real nvml-wrapper"),
            ),
            ("control", part("real", "the program that users install")),
            ("agent", part("real", "from the tarball that the user data names")),
        ]);
        components
    }

    fn node_components(&self) -> Vec<(&'static str, Component)> {
        let machine = self.options.nodes == NodesGear::Machine;
        let pick = |real: &str, standin: &str| {
            if machine { part("real", real) } else { part("stand-in", standin) }
        };
        vec![
            (
                "nodes",
                pick(
                    "machines: namespaces, network, cgroups",
                    "process nodes: files and processes, no machine",
                ),
            ),
            (
                "imds",
                part(
                    "stand-in",
                    if machine {
                        "IMDSv2 at 169.254.169.254"
                    } else {
                        "IMDSv2 on each node's loopback address"
                    },
                ),
            ),
            (
                "systemd",
                pick(
                    "systemd as PID 1, journald; cloud-init-double",
                    "systemctl-double, journalctl-double",
                ),
            ),
            ("nodeadm", pick("AWS's nodeadm", "nodeadm-standin")),
            (
                "kubelet",
                pick(
                    "kubelet, containerd, runc, CNI plugins; aws-node-double",
                    "kubelet-standin, with the VPC CNI's and device plugin's pods",
                ),
            ),
        ]
    }
}

fn part(kind: &str, what: &str) -> Component {
    Component { kind: kind.into(), what: what.into(), endpoint: None, pid: None }
}

/// Whether `path` looks like the emulator's package.
#[must_use]
pub fn is_emulator(path: &Path) -> bool {
    path.join("rollcall_emulator/__main__.py").is_file()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record() -> Record {
        Record {
            phase: Phase::Serving,
            error: None,
            supervisor: ProcessId { pid: 1, started: 0 },
            since: "2026-11-20T20:00:00Z".into(),
            options: Options {
                speed: 0.02,
                kubernetes: KubernetesGear::Standin,
                nodes: NodesGear::Process,
                python: "python3".into(),
                emulator: "emulator".into(),
                nvml: None,
                baked_agent: None,
            },
            api: "http://127.64.0.1:1337".into(),
            token: "t".into(),
            endpoint: "http://127.0.0.1:5000".into(),
            region: "us-east-1".into(),
            operator: Some(Credentials {
                access_key_id: "AKID".into(),
                secret_access_key: "s/+".into(),
                session_token: None,
            }),
            kubernetes: "https://localhost:6443".into(),
        }
    }

    #[test]
    fn the_environment_is_what_a_shell_takes() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("env");
        std::fs::write(&file, record().env()).unwrap();
        let script = format!(
            ". {}; echo $AWS_ENDPOINT_URL $AWS_REGION $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY [$AWS_PROFILE]",
            file.display()
        );
        let shell = std::process::Command::new("sh")
            .args(["-ec", &script])
            .env("AWS_PROFILE", "somebody")
            .output()
            .unwrap();
        let said = String::from_utf8(shell.stdout).unwrap();
        assert_eq!(said, "http://127.0.0.1:5000 us-east-1 AKID s/+ []\n");
    }

    #[test]
    fn a_record_is_for_its_user_and_reads_back() {
        use std::os::unix::fs::PermissionsExt as _;
        let temporary = tempfile::tempdir().unwrap();
        let directory = LabDirectory::open(temporary.path()).unwrap();
        record().write(&directory).unwrap();
        assert_eq!(Record::read(&directory), Some(record()));
        let mode = std::fs::metadata(directory.record()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let gone = Record { supervisor: ProcessId { pid: i32::MAX, started: 1 }, ..record() };
        gone.write(&directory).unwrap();
        assert_eq!(Record::of_live_lab(&directory), None);
        assert_eq!(record().ports(), ["127.64.0.1:1337", "127.0.0.1:5000", "localhost:6443"]);
    }
}
