//! kubelet's kubeconfig, as nodeadm's config phase writes it: which cluster is this node's?

use serde::Deserialize;

use super::Cluster;
use crate::host::{Root, files};

/// Where nodeadm writes it.
pub const PATH: &str = "/var/lib/kubelet/kubeconfig";

/// Why the kubeconfig names no cluster.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// It is no kubeconfig.
    #[error("`{PATH}` cannot be read as a kubeconfig")]
    Parse(#[source] serde_yaml::Error),
    /// It lacks something.
    #[error("`{PATH}` has no {0}")]
    Missing(&'static str),
}

#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Access,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Access {
    server: String,
    certificate_authority: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
struct User {
    exec: Option<Exec>,
}

#[derive(Deserialize)]
struct Exec {
    #[serde(default)]
    command: String,
    #[serde(default)]
    args: Vec<String>,
}

/// The program that gets kubelet its token; `None` when there is no kubeconfig or it names none.
#[must_use]
pub fn exec_command(root: &Root) -> Option<String> {
    let text = files::read_text(&root.path(PATH)).ok()?;
    let config: Kubeconfig = serde_yaml::from_str(&text).ok()?;
    let command = config.users.into_iter().next()?.user.exec?.command;
    (!command.is_empty()).then_some(command)
}

/// The cluster that the node's kubelet is configured for.
///
/// # Errors
/// When the file is missing, or not one that nodeadm wrote.
pub fn cluster(root: &Root) -> Result<Cluster, KubeconfigError> {
    let text = files::read_text(&root.path(PATH))?;
    let config: Kubeconfig = serde_yaml::from_str(&text).map_err(KubeconfigError::Parse)?;
    let missing = KubeconfigError::Missing;
    let access = config.clusters.into_iter().next().ok_or(missing("cluster"))?.cluster;
    let user = config.users.into_iter().next().ok_or(missing("user"))?.user;
    let args = user.exec.ok_or(missing("exec plugin"))?.args;
    let after = |flag: &str| {
        let value = args.iter().skip_while(|arg| *arg != flag).nth(1);
        value.cloned()
    };
    let ca_path = access.certificate_authority.ok_or(missing("certificate-authority"))?;
    Ok(Cluster {
        name: after("--cluster-name").ok_or(missing("--cluster-name"))?,
        region: after("--region").ok_or(missing("--region"))?,
        endpoint: access.server,
        ca_pem: files::read(&root.path(ca_path))?,
        proxy: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "apiVersion: v1
kind: Config
clusters:
  - name: kubernetes
    cluster:
      certificate-authority: /etc/kubernetes/pki/ca.crt
      server: https://ABC.gr7.us-east-1.eks.amazonaws.com
current-context: kubelet
users:
  - name: kubelet
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1beta1
        command: aws
        args: [\"eks\", \"get-token\", \"--cluster-name\", \"prod\", \"--region\", \"us-east-1\"]
";

    #[test]
    fn reads_what_nodeadm_writes() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert!(cluster(&root).is_err());
        std::fs::create_dir_all(root.path("/var/lib/kubelet")).unwrap();
        std::fs::create_dir_all(root.path("/etc/kubernetes/pki")).unwrap();
        std::fs::write(root.path(PATH), KUBECONFIG).unwrap();
        std::fs::write(root.path("/etc/kubernetes/pki/ca.crt"), "PEM").unwrap();
        let expected = Cluster {
            name: "prod".into(),
            region: "us-east-1".into(),
            endpoint: "https://ABC.gr7.us-east-1.eks.amazonaws.com".into(),
            ca_pem: b"PEM".to_vec(),
            proxy: None,
        };
        assert_eq!(cluster(&root).unwrap(), expected);
        assert_eq!(exec_command(&root).as_deref(), Some("aws"));

        std::fs::write(root.path(PATH), KUBECONFIG.replace("--region", "--other")).unwrap();
        assert!(cluster(&root).unwrap_err().to_string().contains("--region"));
        std::fs::write(root.path(PATH), "[").unwrap();
        assert!(matches!(cluster(&root).unwrap_err(), KubeconfigError::Parse(_)));
    }
}
