//! The files of the real cluster's PKI: its authority, the API server's own certificate, and one for
//! each who calls it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;

use super::RealError;
use crate::kubernetes::authority::{Authority, Signed, write};

/// Files of the cluster's PKI, below one folder.
#[derive(Debug, Clone)]
pub(super) struct Pki {
    dir: PathBuf,
    pub(super) ca_pem: String,
    /// Certificate and key of the lab itself, which may do everything.
    pub(super) admin_pem: String,
}

impl Pki {
    pub(super) fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Who calls the API server with a certificate: file name, user, group.
const CLIENTS: [(&str, &str, &str); 3] = [
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
];

/// What the API server is called besides its addresses.
const NAMES: [&str; 4] =
    ["localhost", "kubernetes.default.svc", "kubernetes.default", "kubernetes"];

/// Makes the whole PKI in `dir`. `addresses` are those that clients use besides `localhost`.
pub(super) fn make(dir: &Path, addresses: &[IpAddr]) -> Result<Pki, RealError> {
    let authority = Authority::new("kubernetes")?;
    write(&dir.join("ca.crt"), authority.ca_pem.as_bytes())?;
    write(&dir.join("ca.key"), authority.key_pem.as_bytes())?;
    let save = |name: &str, signed: &Signed| {
        write(&dir.join(format!("{name}.crt")), signed.certificate.pem().as_bytes())?;
        write(&dir.join(format!("{name}.key")), signed.key.serialize_pem().as_bytes())
    };
    let addresses: Vec<IpAddr> =
        addresses.iter().copied().chain([Ipv4Addr::LOCALHOST.into()]).collect();
    save("server", &authority.server("kube-apiserver", &NAMES, &addresses)?)?;
    for (name, user, group) in CLIENTS {
        save(name, &authority.client(user, group)?)?;
    }
    let lab = authority.client("lab", "system:masters")?;
    let signing = KeyPair::generate()?;
    write(&dir.join("service-account.key"), signing.serialize_pem().as_bytes())?;
    write(&dir.join("service-account.pub"), signing.public_key_pem().as_bytes())?;
    let admin_pem = format!("{}{}", lab.certificate.pem(), lab.key.serialize_pem());
    Ok(Pki { dir: dir.to_owned(), ca_pem: authority.ca_pem, admin_pem })
}
