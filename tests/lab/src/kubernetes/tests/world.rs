//! AWS as these tests know it: some credentials, and a judge who verifies a presigned request by
//! signing it again. The signer is held against the AWS CLI's own tokens in its crate.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use serde_json::json;

use crate::kubernetes::world::{Answer, Caller, Instance, Observation, World, WorldError};

/// An AWS with a cluster `prod`, an operator, and two nodes `i-a` and `i-b`.
#[derive(Debug)]
pub(super) struct TestWorld {
    observation: Mutex<Observation>,
    callers: BTreeMap<&'static str, Caller>,
    /// How many tokens STS was asked about.
    pub(super) judged: AtomicUsize,
}

pub(super) fn credentials(key: &str) -> Credentials {
    Credentials::new(key, format!("secret of {key}"), Some("session".to_owned()), None, "test")
}

impl TestWorld {
    pub(super) fn new() -> Self {
        let cluster = json!({"name": "prod", "status": "ACTIVE", "version": "1.34", "addons": [],
            "accessEntries": [
                {"principalArn": "arn:aws:iam::1:role/nodes", "type": "EC2_LINUX"},
                {"principalArn": "arn:aws:iam::1:user/operator", "type": "STANDARD", "policies": [
                    "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"]}]});
        let instance = |id: &str, name: &str| Instance {
            instance_id: id.into(),
            instance_type: "p5.48xlarge".into(),
            state: "running".into(),
            zone: "us-east-1a".into(),
            private_dns_name: name.into(),
            ..Instance::default()
        };
        let observation = Observation {
            cluster: serde_json::from_value(cluster).unwrap(),
            instances: vec![instance("i-a", "a"), instance("i-b", "b")],
        };
        let caller = |arn: &str| Caller {
            arn: arn.into(),
            account: "1".into(),
            user_id: "AROAEXAMPLE:x".into(),
        };
        let callers = BTreeMap::from([
            ("OPERATOR", caller("arn:aws:iam::1:user/operator")),
            ("NODEA", caller("arn:aws:sts::1:assumed-role/nodes/i-a")),
            ("NODEB", caller("arn:aws:sts::1:assumed-role/nodes/i-b")),
            ("STRANGER", caller("arn:aws:iam::1:user/stranger")),
        ]);
        Self { observation: Mutex::new(observation), callers, judged: AtomicUsize::new(0) }
    }

    /// As it was when it was new.
    pub(super) fn reset(&self) {
        let fresh = Self::new().observation.into_inner().unwrap();
        self.change(|observation| *observation = fresh);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Observation)) {
        change(&mut self.observation.lock().unwrap());
    }

    fn judge(&self, url: &str, cluster: &str) -> Result<Caller, WorldError> {
        self.judged.fetch_add(1, Ordering::Relaxed);
        let refuse = || WorldError::Refused("SignatureDoesNotMatch".into());
        let parsed = url::Url::parse(url).unwrap();
        let query: BTreeMap<_, _> = parsed.query_pairs().into_owned().collect();
        let key = query["X-Amz-Credential"].split('/').next().unwrap();
        let (key, caller) = self.callers.get_key_value(key).ok_or_else(refuse)?;
        let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &query["X-Amz-Date"]).unwrap();
        let time = date.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().into();
        let again = eks_token::mint(&credentials(key), "us-east-1", cluster, time).unwrap();
        if decoded(again.expose())
            .contains(&format!("X-Amz-Signature={}", query["X-Amz-Signature"]))
        {
            Ok(caller.clone())
        } else {
            Err(refuse())
        }
    }
}

impl World for TestWorld {
    fn whoami<'a>(&'a self, url: &'a str, cluster: &'a str) -> Answer<'a, Caller> {
        Box::pin(std::future::ready(self.judge(url, cluster)))
    }

    fn observe(&self) -> Answer<'_, Observation> {
        Box::pin(std::future::ready(Ok(self.observation.lock().unwrap().clone())))
    }
}

pub(super) fn decoded(token: &str) -> String {
    use base64::Engine as _;
    let encoded = token.strip_prefix("k8s-aws-v1.").unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).unwrap();
    String::from_utf8(bytes).unwrap()
}

pub(super) fn encoded(url: &str) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(url);
    format!("k8s-aws-v1.{encoded}")
}

/// A token of this key's for a cluster, signed so long ago.
pub(super) fn minted(key: &str, cluster: &str, age: Duration) -> String {
    let at = SystemTime::now() - age;
    eks_token::mint(&credentials(key), "us-east-1", cluster, at).unwrap().expose().to_owned()
}

/// The operator's token for the cluster `prod`, validly signed, for another host than STS's own.
pub(super) fn signed_for(host: &str) -> String {
    let address = format!("https://{host}/?Action=GetCallerIdentity&Version=2011-06-15");
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(60));
    let identity = credentials("OPERATOR").into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("sts")
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let headers = std::iter::once(("x-k8s-aws-id", "prod"));
    let request = SignableRequest::new("GET", &address, headers, SignableBody::empty()).unwrap();
    let (signed, _) = sign(request, &parameters).unwrap().into_parts();
    let mut url = url::Url::parse(&address).unwrap();
    for (name, value) in signed.params() {
        url.query_pairs_mut().append_pair(name, value);
    }
    encoded(url.as_str())
}
