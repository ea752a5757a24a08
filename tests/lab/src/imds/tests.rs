//! The protocol, over HTTP, and the tree.

use super::*;

fn instance() -> Instance {
    Instance {
        instance_id: "i-0abc".into(),
        instance_type: "p5.48xlarge".into(),
        zone: "us-east-1a".into(),
        zone_id: "use1-az1".into(),
        subnet_id: "subnet-1".into(),
        vpc_id: "vpc-1".into(),
        private_ip: "10.0.1.7".into(),
        private_dns_name: "ip-10-0-1-7.ec2.internal".into(),
        mac: "02:00:00:00:00:07".into(),
        image_id: "ami-1".into(),
        launch_time: "2026-11-20T20:00:03.123Z".into(),
        role_arn: Some("arn:aws:iam::123456789012:role/node".into()),
        instance_profile_arn: Some("arn:aws:iam::123456789012:instance-profile/p".into()),
        security_groups: vec!["sg-1".into(), "sg-2".into()],
        ..Instance::default()
    }
}

fn emulator() -> Emulator {
    let operator = Credentials {
        access_key_id: "AKID".into(),
        secret_access_key: "secret".into(),
        session_token: None,
    };
    Emulator::new("http://127.0.0.1:9".into(), "us-east-1".into(), operator)
}

struct Served {
    imds: Arc<Imds>,
    url: String,
    http: reqwest::Client,
    _tasks: Tasks,
}

impl Served {
    async fn start() -> Self {
        let imds = Imds::new(instance(), Some(b"user data \xff".to_vec()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = imds.start(listener, emulator());
        Self { imds, url, http: reqwest::Client::new(), _tasks: tasks }
    }

    async fn token(&self, ttl: &str) -> (u16, String) {
        let request = self.http.put(format!("{}/latest/api/token", self.url));
        let request = request.header("x-aws-ec2-metadata-token-ttl-seconds", ttl);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn get(&self, path: &str, token: &str) -> (u16, Vec<u8>) {
        let request = self.http.get(format!("{}{path}", self.url));
        let answer = request.header("x-aws-ec2-metadata-token", token).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    }
}

#[tokio::test]
async fn nothing_without_a_token() {
    let served = Served::start().await;
    let bare = served.http.get(format!("{}/latest/meta-data/instance-id", served.url));
    assert_eq!(bare.send().await.unwrap().status(), 401);
    assert_eq!(served.get("/latest/meta-data/instance-id", "invented").await.0, 401);
    for ttl in ["0", "21601", "soon"] {
        assert_eq!(served.token(ttl).await.0, 400, "{ttl}");
    }
    let proxied = served.http.put(format!("{}/latest/api/token", served.url));
    let proxied = proxied.header("x-forwarded-for", "10.0.0.1");
    let proxied = proxied.header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    assert_eq!(proxied.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn with_a_token_it_tells_everything() {
    let served = Served::start().await;
    let (status, token) = served.token("60").await;
    assert_eq!(status, 200);
    assert_eq!(
        served.get("/latest/meta-data/instance-id", &token).await,
        (200, b"i-0abc".to_vec())
    );
    assert_eq!(served.get("/latest/user-data", &token).await, (200, b"user data \xff".to_vec()));
    assert_eq!(served.get("/latest/meta-data/spot/instance-action", &token).await.0, 404);
    assert_eq!(
        served.get("/latest/meta-data/iam/security-credentials/", &token).await.1,
        b"node".to_vec()
    );
}

#[tokio::test]
async fn credentials_are_served_once_there_are_some() {
    let served = Served::start().await;
    let (_, token) = served.token("60").await;
    let path = "/latest/meta-data/iam/security-credentials/node";
    let document = |body: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&body).unwrap();
    assert!(served.imds.refresh(&emulator()).await.is_err(), "there is no emulator");
    let before = document(served.get(path, &token).await.1);
    assert_eq!(before["Code"], "AssumeRoleUnauthorizedAccess");
    *lock(&served.imds.role) = Some(RoleCredentials {
        credentials: Credentials {
            access_key_id: "ASIA".into(),
            secret_access_key: "s".into(),
            session_token: Some("t".into()),
        },
        issued: Timestamp::now(),
        expiration: "2099-01-01T00:00:00Z".into(),
    });
    let after = document(served.get(path, &token).await.1);
    assert_eq!(after["Code"], "Success");
    assert_eq!(after["Token"], "t");
    assert!(served.imds.until_renewal() > Duration::from_secs(3600));
    assert_eq!(served.get("/latest/meta-data/iam/security-credentials/other", &token).await.0, 404);
}

#[tokio::test]
async fn trouble_and_back() {
    let served = Served::start().await;
    served.imds.set_troubles(vec![Trouble::Status(503)]);
    assert_eq!(served.token("60").await.0, 503);
    served.imds.set_troubles(vec![Trouble::Slow(Duration::from_millis(80))]);
    let began = Instant::now();
    assert_eq!(served.token("60").await.0, 200);
    assert!(began.elapsed() >= Duration::from_millis(80));
    served.imds.set_troubles(vec![Trouble::NoToken]);
    assert_eq!(served.token("60").await.0, 403);
    served.imds.set_troubles(Vec::new());
    assert_eq!(served.token("60").await.0, 200);
}

#[tokio::test]
async fn answers_that_lack_something_or_break_off() {
    let served = Served::start().await;
    let token = served.token("60").await.1;
    let path = "/latest/dynamic/instance-identity/document";
    let lacks = |what: &str| vec![Trouble::Lacks(what.to_owned())];
    served.imds.set_troubles(lacks("region"));
    let document: serde_json::Value =
        serde_json::from_slice(&served.get(path, &token).await.1).unwrap();
    assert_eq!((&document["region"], &document["instanceId"]), (&json!(null), &json!("i-0abc")));
    served.imds.set_troubles(lacks("user-data"));
    assert_eq!(served.get("/latest/user-data", &token).await.0, 404);
    assert_eq!(served.get(path, &token).await.0, 200);

    served.imds.set_troubles(vec![Trouble::Half]);
    assert_eq!(served.token("60").await.0, 200, "tokens are whole");
    let request = served.http.get(format!("{}{path}", served.url));
    let answer = request.header("x-aws-ec2-metadata-token", &token).send().await.unwrap();
    assert!(answer.bytes().await.is_err(), "the body was whole");
    served.imds.set_troubles(vec![Trouble::Silent]);
    let request = served.http.get(format!("{}{path}", served.url));
    assert!(request.timeout(Duration::from_millis(200)).send().await.is_err());
}

#[test]
fn the_tree() {
    let instance = instance();
    let node = Node { instance: &instance };
    let get = |path: &str| node.get(&format!("/latest/{path}"));
    let mac = "network/interfaces/macs/02:00:00:00:00:07";
    let cases = [
        ("meta-data/placement/region", Some("us-east-1")),
        ("meta-data/placement/availability-zone-id", Some("use1-az1")),
        ("meta-data/local-hostname", Some("ip-10-0-1-7.ec2.internal")),
        ("meta-data/events/maintenance/scheduled", Some("[]")),
        ("meta-data/network/interfaces/macs/", Some("02:00:00:00:00:07/")),
        ("meta-data/iam/security-credentials/", Some("node")),
        ("meta-data/iam", Some("info\nsecurity-credentials/")),
        ("meta-data/nothing", None),
        ("meta-data/instance-id/x", None),
        ("dynamic/instance-identity/", Some("document")),
    ];
    for (path, expected) in cases {
        assert_eq!(get(path).as_deref(), expected, "{path}");
    }
    assert_eq!(get(&format!("meta-data/{mac}/vpc-id")).as_deref(), Some("vpc-1"));
    assert_eq!(get(&format!("meta-data/{mac}/security-group-ids")).as_deref(), Some("sg-1\nsg-2"));
    assert!(get("meta-data/").unwrap().lines().any(|line| line == "placement/"));
    assert_eq!(node.get("/"), None);
}

#[test]
fn the_identity_document_has_whole_seconds() {
    let instance = instance();
    let text = Node { instance: &instance }.get("/latest/dynamic/instance-identity/document");
    let document: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
    assert_eq!(document["pendingTime"], "2026-11-20T20:00:03Z");
    assert_eq!(document["region"], "us-east-1");
    assert_eq!(document["accountId"], "123456789012");
}
