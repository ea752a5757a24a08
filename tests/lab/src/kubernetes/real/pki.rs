//! The cluster's certificates: its authority, the API server's own, and one for each who calls it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{RealError, write};

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

/// Makes the whole PKI in `dir`. `addresses` are those that clients use besides `localhost`.
pub(super) fn make(dir: &Path, addresses: &[IpAddr]) -> Result<Pki, RealError> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.push(DnType::CommonName, "kubernetes");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    write(&dir.join("ca.crt"), ca_pem.as_bytes())?;
    write(&dir.join("ca.key"), ca_key.serialize_pem().as_bytes())?;
    let issuer = Issuer::new(ca, ca_key);
    let save = |name: &str, (certificate, key): (String, String)| {
        write(&dir.join(format!("{name}.crt")), certificate.as_bytes())?;
        write(&dir.join(format!("{name}.key")), key.as_bytes())
    };
    save("server", server(addresses, &issuer)?)?;
    for (name, user, group) in CLIENTS {
        save(name, client(user, group, &issuer)?)?;
    }
    let (certificate, key) = client("lab", "system:masters", &issuer)?;
    let signing = KeyPair::generate()?;
    write(&dir.join("service-account.key"), signing.serialize_pem().as_bytes())?;
    write(&dir.join("service-account.pub"), signing.public_key_pem().as_bytes())?;
    Ok(Pki { dir: dir.to_owned(), ca_pem, admin_pem: format!("{certificate}{key}") })
}

fn server(
    addresses: &[IpAddr],
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(String, String), RealError> {
    let names = ["localhost", "kubernetes.default.svc", "kubernetes.default", "kubernetes"];
    let mut params = CertificateParams::new(names.map(str::to_owned))?;
    params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    signed(params, issuer)
}

fn client(
    user: &str,
    group: &str,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(String, String), RealError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    signed(params, issuer)
}

fn signed(
    mut params: CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(String, String), RealError> {
    let key = KeyPair::generate()?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}
