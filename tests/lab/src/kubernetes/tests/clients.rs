//! Real clients: what kube's typed API makes of the answers.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};

use super::*;

checks! {
    kubes_typed_clients_read_write_apply_and_understand_refusals,
}

fn client(served: &Served, key: &str) -> kube::Client {
    let endpoint = served.handle.endpoint().parse().unwrap();
    let mut config = kube::Config::new(endpoint);
    let ca = rustls_pki_types::pem::PemObject::from_pem_slice(served.handle.ca_pem().as_bytes());
    let ca: rustls_pki_types::CertificateDer<'_> = ca.unwrap();
    config.root_cert = Some(vec![ca.to_vec()]);
    let token = minted(key, "prod", Duration::ZERO);
    config.auth_info.token = Some(token.into());
    kube::Client::try_from(config).unwrap()
}

async fn kubes_typed_clients_read_write_apply_and_understand_refusals(served: &Served) {
    let (operator, node) = (client(served, "OPERATOR"), client(served, "NODEA"));
    let version = operator.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "34"));

    let mine: Api<Node> = Api::all(node.clone());
    let object: Node = serde_json::from_value(a_node("a")).unwrap();
    mine.create(&PostParams::default(), &object).await.unwrap();
    let refused = mine.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused:?}");
    let patch = json!({"status": {"conditions": [{"type": "AcceleratedHardwareReady",
        "status": "True"}]}});
    let params = PatchParams::default();
    let patched = mine.patch_status("a", &params, &Patch::Strategic(patch)).await.unwrap();
    assert_eq!(patched.status.unwrap().conditions.unwrap().len(), 2);

    let all: Api<Node> = Api::all(operator.clone());
    assert_eq!(all.list(&ListParams::default()).await.unwrap().items.len(), 1);
    let sets: Api<DaemonSet> = Api::namespaced(operator, "kube-system");
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {
            "metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let params = PatchParams::apply("rollcall").force();
    let applied = sets.patch("d", &params, &Patch::Apply(set)).await.unwrap();
    assert_eq!(applied.metadata.generation, Some(1));
    assert!(sets.get_opt("none").await.unwrap().is_none());

    let reviews: Api<SelfSubjectReview> = Api::all(node);
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let user = review.unwrap().status.unwrap().user_info.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:node:a"));
}
