//! The few AWS calls that put an instance into the emulator, as an operator makes them.

use lab::aws::{Credentials, Request, sign};
use serde_json::Value;

pub(crate) struct Aws {
    endpoint: String,
    operator: Credentials,
    http: reqwest::Client,
}

impl Aws {
    pub(crate) fn of(record: &Value) -> Self {
        Self {
            endpoint: record["endpoint"].as_str().unwrap().to_owned(),
            operator: serde_json::from_value(record["operator"].clone()).unwrap(),
            http: reqwest::Client::new(),
        }
    }

    async fn send(&self, method: &str, path: &str, service: &str, body: Vec<u8>) -> String {
        let url = format!("{}{path}", self.endpoint);
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let headers: &[(&str, &str)] = if method == "POST" { &form } else { &[] };
        let request =
            Request { method, url: &url, headers, body: &body, service, region: "us-east-1" };
        let mut builder = self.http.request(method.parse().unwrap(), &url);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        for (name, value) in sign(request, &self.operator).unwrap() {
            builder = builder.header(name, value);
        }
        let answer = builder.body(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{service} {method} {path}: {status} {text}");
        text
    }

    async fn query(&self, service: &str, version: &str, fields: &[(&str, &str)]) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("Version", version).extend_pairs(fields);
        self.send("POST", "/", service, form.finish().into_bytes()).await
    }

    /// A role that instances may have, and its profile.
    pub(crate) async fn make_role(&self) {
        let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
        let rights = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject","ec2:DescribeInstances"],"Resource":"*"}]}"#;
        for fields in [
            &[("Action", "CreateRole"), ("RoleName", "node"), ("AssumeRolePolicyDocument", trust)]
                [..],
            &[
                ("Action", "PutRolePolicy"),
                ("RoleName", "node"),
                ("PolicyName", "p"),
                ("PolicyDocument", rights),
            ],
            &[("Action", "CreateInstanceProfile"), ("InstanceProfileName", "node")],
            &[
                ("Action", "AddRoleToInstanceProfile"),
                ("InstanceProfileName", "node"),
                ("RoleName", "node"),
            ],
        ] {
            self.query("iam", "2010-05-08", fields).await;
        }
    }

    pub(crate) async fn put_agent(&self, tarball: Vec<u8>) {
        self.send("PUT", "/agents", "s3", Vec::new()).await;
        self.send("PUT", "/agents/agent.tar.gz", "s3", tarball).await;
    }

    /// Launches an instance of pool `gpu`; answers its id.
    pub(crate) async fn launch(&self, instance_type: &str, user_data: &str) -> String {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(user_data);
        let images = [("Action", "DescribeImages"), ("Owner.1", "amazon")];
        let images = self.query("ec2", "2016-11-15", &images).await;
        let image = between(&images, "<imageId>", "<");
        let answer = self
            .query(
                "ec2",
                "2016-11-15",
                &[
                    ("Action", "RunInstances"),
                    ("ImageId", &image),
                    ("MinCount", "1"),
                    ("MaxCount", "1"),
                    ("InstanceType", instance_type),
                    ("UserData", &encoded),
                    ("IamInstanceProfile.Name", "node"),
                    ("TagSpecification.1.ResourceType", "instance"),
                    ("TagSpecification.1.Tag.1.Key", "rollcall:pool"),
                    ("TagSpecification.1.Tag.1.Value", "gpu"),
                ],
            )
            .await;
        between(&answer, "<instanceId>", "<")
    }

    pub(crate) async fn terminate(&self, instance: &str) {
        let fields = [("Action", "TerminateInstances"), ("InstanceId.1", instance)];
        self.query("ec2", "2016-11-15", &fields).await;
    }

    /// What GetConsoleOutput serves.
    pub(crate) async fn console(&self, instance: &str) -> String {
        use base64::Engine as _;
        let fields = [("Action", "GetConsoleOutput"), ("InstanceId", instance)];
        let answer = self.query("ec2", "2016-11-15", &fields).await;
        let output: String = between(&answer, "<output>", "<").split_whitespace().collect();
        let raw = base64::engine::general_purpose::STANDARD.decode(output).unwrap();
        String::from_utf8_lossy(&raw).into_owned()
    }
}

fn between(text: &str, open: &str, close: &str) -> String {
    let start = text.find(open).unwrap_or_else(|| panic!("no {open} in {text}")) + open.len();
    text[start..].split(close).next().unwrap().to_owned()
}
