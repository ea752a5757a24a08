//! The stand-in's TLS side: HTTP/1.1 alone, under the cluster's own authority.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::StandinError;
use crate::kubernetes::authority::Authority;

/// Accepts under a certificate for `localhost`.
pub(super) fn acceptor(authority: &Authority) -> Result<TlsAcceptor, StandinError> {
    let server = authority.server(&["localhost"], &[Ipv4Addr::LOCALHOST.into()])?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![server.certificate.der().clone()],
            PrivateKeyDer::Pkcs8(server.key.serialize_der().into()),
        )?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
