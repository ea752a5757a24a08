//! The way to the API server, ended at each step by a real listener or by nothing at all.

use std::sync::Arc;

use aws_credential_types::Credentials;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use contract::ErrorChain;

/// A CA of its own for each test.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

fn facts(endpoint: &str, ca: &CertifiedIssuer<'static, KeyPair>) -> ClusterFacts {
    ClusterFacts {
        name: "prod".into(),
        region: "us-east-1".into(),
        arn: "arn:aws:eks:us-east-1:111122223333:cluster/prod".into(),
        endpoint: endpoint.into(),
        certificate_authority: STANDARD.encode(ca.pem()),
        version: "1.34".into(),
        service_cidr: "172.20.0.0/16".into(),
        security_group: "sg-1".into(),
        vpc: "vpc-1".into(),
        cluster_role_arn: "arn:aws:iam::111122223333:role/prod-cluster".into(),
        node_role_arns: vec![],
        oidc_issuer: String::new(),
        status: "ACTIVE".into(),
    }
}

fn operator() -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
}

/// Serves `status` and `body` to each request, with a certificate for localhost signed by `ca`.
async fn serve(
    ca: &CertifiedIssuer<'static, KeyPair>,
    status: &'static str,
    body: String,
) -> String {
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, ca).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 16 * 1024];
            let _ = stream.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    format!("https://localhost:{port}")
}

fn refusal(code: u16, reason: &str, message: &str) -> String {
    serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                       "message": message, "reason": reason, "code": code})
    .to_string()
}

async fn cause_at(endpoint: &str, ca: &CertifiedIssuer<'static, KeyPair>) -> KubeError {
    let cluster = connect(&facts(endpoint, ca), operator()).await.unwrap();
    cluster.nodes(None).await.unwrap_err()
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let error = cause_at("https://api.prod.invalid", &authority()).await;
    assert!(matches!(*error.cause, Cause::Dns { .. }), "{error:?}");
    assert!(error.is_transient());
    let text = ErrorChain(&error).to_string();
    assert!(
        text.starts_with("could not list the nodes of cluster `prod`: the name `api.prod.invalid`"),
        "{text}"
    );
}

#[tokio::test]
async fn a_port_that_nobody_listens_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = cause_at(&format!("https://localhost:{port}"), &authority()).await;
    assert!(matches!(*error.cause, Cause::Tcp { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("publicAccessCidrs"));
}

#[tokio::test]
async fn a_certificate_of_another_ca() {
    let endpoint = serve(&authority(), "200 OK", "{}".into()).await;
    let error = cause_at(&endpoint, &authority()).await;
    assert!(matches!(*error.cause, Cause::Tls { .. }), "{error:?}");
    assert!(!error.is_transient(), "waiting does not sign a certificate");
}

#[tokio::test]
async fn an_identity_that_is_not_known() {
    let ca = authority();
    let endpoint =
        serve(&ca, "401 Unauthorized", refusal(401, "Unauthorized", "Unauthorized")).await;
    let error = cause_at(&endpoint, &ca).await;
    assert!(matches!(*error.cause, Cause::Unauthorized { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("create-access-entry --cluster-name prod"));
}

#[tokio::test]
async fn an_identity_that_may_not() {
    let ca = authority();
    let message = "nodes is forbidden: User \"x\" cannot list resource \"nodes\"";
    let endpoint = serve(&ca, "403 Forbidden", refusal(403, "Forbidden", message)).await;
    let error = cause_at(&endpoint, &ca).await;
    assert!(ErrorChain(&error).to_string().contains(message), "{error:?}");
    assert!(matches!(*error.cause, Cause::Forbidden { .. }));
}

#[tokio::test]
async fn an_answer() {
    let ca = authority();
    let list = serde_json::json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {},
        "items": [{"metadata": {"name": "ip-10-0-1-7.ec2.internal"},
                   "spec": {"providerID": "aws:///us-east-1a/i-0abc"}}]});
    let endpoint = serve(&ca, "200 OK", list.to_string()).await;
    let cluster = connect(&facts(&endpoint, &ca), operator()).await.unwrap();
    let nodes = cluster.nodes(None).await.unwrap();
    assert_eq!(nodes[0].instance_id(), Some("i-0abc"));
}

#[tokio::test]
async fn facts_that_cannot_be_used() {
    let ca = authority();
    for (endpoint, data, wanted) in [
        ("http://localhost:1", STANDARD.encode(ca.pem()), "is no https URL"),
        ("https://localhost:1", "%%%".to_owned(), "not base64"),
        ("https://localhost:1", STANDARD.encode("nothing"), "no certificate in it"),
    ] {
        let mut facts = facts(endpoint, &ca);
        facts.certificate_authority = data;
        let error = connect(&facts, operator()).await.unwrap_err();
        let text = ErrorChain(&error).to_string();
        assert!(text.contains(wanted), "{text}");
    }
}
