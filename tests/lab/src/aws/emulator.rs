//! The emulator as the lab sees it: instances to boot, node states to report, fault rules, and the
//! few AWS calls that belong to the lab's own side of the world.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::sign::{Credentials, Request, SignError, sign};
use super::xml_text;

/// No call to a process on this machine takes longer unless something is broken.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a call to the emulator can fail with.
#[derive(Debug, Error)]
pub enum EmulatorError {
    /// No answer.
    #[error("no answer to `{call}`")]
    Unreachable {
        /// What was called.
        call: String,
        /// Why there was no answer.
        #[source]
        source: reqwest::Error,
    },
    /// An answer that says no.
    #[error("`{call}` was answered with {status}: {body}")]
    Refused {
        /// What was called.
        call: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the answer.
        body: String,
    },
    /// An answer that makes no sense.
    #[error("the answer to `{call}` cannot be read: {why}")]
    Unreadable {
        /// What was called.
        call: String,
        /// What is wrong with it.
        why: String,
    },
    /// The request could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl EmulatorError {
    /// Whether the same call may well succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Unreadable { .. } | Self::Sign(_) => false,
        }
    }
}

/// One instance as the emulator's control API lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Instance {
    /// `i-…`.
    pub instance_id: String,
    /// Instance type.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down`, `terminated`.
    pub state: String,
    /// Availability zone, `us-east-1a`.
    pub zone: String,
    /// Zone id, `use1-az1`.
    pub zone_id: String,
    /// Subnet.
    pub subnet_id: String,
    /// VPC.
    pub vpc_id: String,
    /// Primary private address.
    pub private_ip: String,
    /// `ip-10-0-1-7.ec2.internal`.
    pub private_dns_name: String,
    /// MAC address of the primary interface.
    pub mac: String,
    /// Image.
    pub image_id: String,
    /// Its name; empty once it is deregistered.
    pub image_name: String,
    /// When it was launched, RFC 3339.
    pub launch_time: String,
    /// User data in base64, as it was given.
    pub user_data: Option<String>,
    /// The role of its instance profile.
    pub role_arn: Option<String>,
    /// Its instance profile.
    pub instance_profile_arn: Option<String>,
    /// Security groups.
    pub security_groups: Vec<String>,
    /// EKS cluster that the instance belongs to.
    pub cluster: Option<String>,
    /// Managed node group that launched it.
    pub nodegroup: Option<String>,
    /// Ordinal within its node group, from 0.
    pub index: Option<u32>,
    /// The public key of its key pair.
    pub public_key: Option<String>,
    /// How often RebootInstances has been called for it.
    pub reboots: u32,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl Instance {
    /// The pool that people call it by: our tag, else the node group's name.
    #[must_use]
    pub fn pool(&self) -> &str {
        let tagged = self.tags.get(contract::names::TAG_POOL).map(String::as_str);
        tagged.or(self.nodegroup.as_deref()).unwrap_or_default()
    }

    /// Name of the instance's role, without path.
    #[must_use]
    pub fn role_name(&self) -> Option<&str> {
        self.role_arn.as_deref()?.rsplit('/').next()
    }

    /// The account that the instance runs in, from its role.
    #[must_use]
    pub fn account(&self) -> &str {
        let arn = self.role_arn.as_deref().or(self.instance_profile_arn.as_deref());
        arn.and_then(|arn| arn.split(':').nth(4)).unwrap_or("123456789012")
    }
}

/// An image that was made of an instance, as the emulator's control API lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MadeImage {
    /// `ami-…`.
    pub image_id: String,
    /// The instance that it was made of.
    pub source_instance_id: String,
    /// Whether its disk has been copied; none until that is known.
    pub disk_kept: Option<bool>,
}

/// A fault rule of the emulator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Service, `s3`.
    pub service: String,
    /// Operation, `GetObject`; `*` is every one.
    pub op: String,
    /// What happens to the call.
    pub action: &'static str,
    /// Part of the caller's ARN; absent: everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// HTTP status of an `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Error code of an `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Parameters of the call and how they begin.
    #[serde(rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<&'static str, String>,
}

#[derive(Deserialize)]
struct RuleIds {
    ids: Vec<u64>,
}

/// A client of the running emulator.
#[derive(Clone, Debug)]
pub struct Emulator {
    http: reqwest::Client,
    endpoint: String,
    region: String,
    operator: Credentials,
}

impl Emulator {
    /// A client for the emulator at `endpoint`, acting as its operator.
    #[must_use]
    pub fn new(endpoint: String, region: String, operator: Credentials) -> Self {
        Self { http: reqwest::Client::new(), endpoint, region, operator }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The region that the lab is in.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The operator's access key.
    #[must_use]
    pub fn operator(&self) -> &Credentials {
        &self.operator
    }

    /// All instances that the emulator knows.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn instances(&self) -> Result<Vec<Instance>, EmulatorError> {
        let body = self.control("GET", "/_control/instances", None).await?;
        serde_json::from_slice(&body).map_err(|e| EmulatorError::Unreadable {
            call: "/_control/instances".into(),
            why: e.to_string(),
        })
    }

    /// The images that were made of instances.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn made_images(&self) -> Result<Vec<MadeImage>, EmulatorError> {
        let body = self.control("GET", "/_control/images", None).await?;
        serde_json::from_slice(&body).map_err(|e| EmulatorError::Unreadable {
            call: "/_control/images".into(),
            why: e.to_string(),
        })
    }

    /// Says that an image's disk is kept, or could not be: the image is available then, or failed.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn report_disk(&self, image_id: &str, kept: bool) -> Result<(), EmulatorError> {
        let body = json!({ image_id: kept });
        self.control("POST", "/_control/disks", Some(body)).await.map(drop)
    }

    /// Says which instances have a Node object, and whether it is Ready.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn report_nodes(&self, nodes: &BTreeMap<String, bool>) -> Result<(), EmulatorError> {
        let body = json!({ "registered": nodes });
        self.control("POST", "/_control/nodes", Some(body)).await.map(drop)
    }

    /// Says how many CoreDNS replicas are available.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn report_coredns(&self, available: u32) -> Result<(), EmulatorError> {
        self.report_workload("coredns", available).await
    }

    /// Says how many pods of an add-on are available; the add-on is DEGRADED while it is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn report_workload(&self, addon: &str, available: u32) -> Result<(), EmulatorError> {
        let body = json!({ addon: { "available": available } });
        self.control("POST", "/_control/workloads", Some(body)).await.map(drop)
    }

    /// Adds a fault rule; returns its id.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn add_rule(&self, rule: &Rule) -> Result<String, EmulatorError> {
        let body = self.control("POST", "/_control/rules", Some(json!([rule]))).await?;
        let unreadable =
            |why: String| EmulatorError::Unreadable { call: "POST /_control/rules".into(), why };
        let added: RuleIds =
            serde_json::from_slice(&body).map_err(|e| unreadable(e.to_string()))?;
        let id = added.ids.first().ok_or_else(|| unreadable("no id of the rule".into()))?;
        Ok(id.to_string())
    }

    /// Removes a fault rule.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn remove_rule(&self, id: &str) -> Result<(), EmulatorError> {
        self.control("DELETE", &format!("/_control/rules?id={id}"), None).await.map(drop)
    }

    /// Temporary credentials of an instance's role, as EC2 makes them: the session is named after
    /// the instance. Returns them with their expiration.
    ///
    /// # Errors
    /// When the role does not exist, or the emulator does not answer.
    pub async fn assume_role(
        &self,
        role_arn: &str,
        instance_id: &str,
    ) -> Result<(Credentials, String), EmulatorError> {
        let session = [("RoleArn", role_arn), ("RoleSessionName", instance_id)];
        let xml = self.query("sts", "AssumeRole", &session).await?;
        let field = |name: &'static str| {
            xml_text(&xml, name).ok_or_else(|| EmulatorError::Unreadable {
                call: "sts:AssumeRole".into(),
                why: format!("no {name}"),
            })
        };
        let credentials = Credentials {
            access_key_id: field("AccessKeyId")?,
            secret_access_key: field("SecretAccessKey")?,
            session_token: Some(field("SessionToken")?),
        };
        Ok((credentials, field("Expiration")?))
    }

    /// Calls EC2, IAM or STS as the operator; gives the answer's XML.
    ///
    /// # Errors
    /// When the service refuses.
    pub async fn query(
        &self,
        service: &'static str,
        operation: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, EmulatorError> {
        let version = match service {
            "ec2" => "2016-11-15",
            "iam" => "2010-05-08",
            _ => "2011-06-15",
        };
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", operation)
            .append_pair("Version", version)
            .extend_pairs(parameters)
            .finish();
        let call = Call {
            method: "POST",
            path: "/",
            service,
            headers: &[("content-type", "application/x-www-form-urlencoded")],
            body: body.as_bytes(),
        };
        let answer = self.call(call, &self.operator).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Calls Systems Manager as the operator.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn ssm(&self, operation: &str, body: &Value) -> Result<Value, EmulatorError> {
        let (target, text) = (format!("AmazonSSM.{operation}"), body.to_string());
        let call = Call {
            method: "POST",
            path: "/",
            service: "ssm",
            headers: &[("content-type", "application/x-amz-json-1.1"), ("x-amz-target", &target)],
            body: text.as_bytes(),
        };
        let answer = self.call(call, &self.operator).await?;
        serde_json::from_slice(&answer).map_err(|e| EmulatorError::Unreadable {
            call: format!("ssm {operation}"),
            why: e.to_string(),
        })
    }

    /// Reads an object with the given credentials.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn get_object(
        &self,
        bucket: &str,
        key: &str,
        credentials: &Credentials,
    ) -> Result<Vec<u8>, EmulatorError> {
        let path = format!("/{bucket}/{key}");
        let call = Call { method: "GET", path: &path, service: "s3", headers: &[], body: b"" };
        self.call(call, credentials).await
    }

    /// Reads a URL that is not the emulator's, unsigned.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn fetch_elsewhere(&self, url: &str) -> Result<Vec<u8>, EmulatorError> {
        answer(self.http.get(url), url).await
    }

    /// Calls EKS as the operator.
    ///
    /// # Errors
    /// When EKS refuses.
    pub async fn eks(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, EmulatorError> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let call = Call {
            method,
            path,
            service: "eks",
            headers: if body.is_some() { &[("content-type", "application/json")] } else { &[] },
            body: text.as_bytes(),
        };
        let answer = self.call(call, &self.operator).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|e| EmulatorError::Unreadable {
            call: format!("eks {method} {path}"),
            why: e.to_string(),
        })
    }

    async fn call(
        &self,
        call: Call<'_>,
        credentials: &Credentials,
    ) -> Result<Vec<u8>, EmulatorError> {
        let url = format!("{}{}", self.endpoint, call.path);
        let request = Request {
            method: call.method,
            url: &url,
            headers: call.headers,
            body: call.body,
            service: call.service,
            region: &self.region,
        };
        let signed = sign(request, credentials)?;
        let mut builder = self.http.request(method(call.method), &url).body(call.body.to_vec());
        for (name, value) in call.headers.iter().copied() {
            builder = builder.header(name, value);
        }
        for (name, value) in &signed {
            builder = builder.header(name, value);
        }
        answer(builder, &format!("{} {} {}", call.service, call.method, call.path)).await
    }

    async fn control(
        &self,
        verb: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Vec<u8>, EmulatorError> {
        let mut builder = self.http.request(method(verb), format!("{}{path}", self.endpoint));
        if let Some(body) = body {
            builder = builder.json(&body);
        }
        answer(builder, &format!("{verb} {path}")).await
    }
}

struct Call<'a> {
    method: &'a str,
    path: &'a str,
    service: &'static str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
}

fn method(name: &str) -> reqwest::Method {
    reqwest::Method::from_bytes(name.as_bytes()).unwrap_or(reqwest::Method::GET)
}

async fn answer(builder: reqwest::RequestBuilder, call: &str) -> Result<Vec<u8>, EmulatorError> {
    let unreachable = |source| EmulatorError::Unreachable { call: call.to_owned(), source };
    let response = builder.timeout(TIMEOUT).send().await.map_err(unreachable)?;
    let status = response.status();
    let body = response.bytes().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(body.to_vec());
    }
    let text: String = String::from_utf8_lossy(&body).chars().take(300).collect();
    Err(EmulatorError::Refused { call: call.to_owned(), status: status.as_u16(), body: text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_read_as_the_control_api_lists_it() {
        let text = r#"{"instanceId":"i-1","type":"p5.48xlarge","state":"running","userData":null,
            "roleArn":"arn:aws:iam::123456789012:role/path/node","nodegroup":"gpu-ng","index":2,
            "tags":{"rollcall:pool":"gpu"},"newer":1}"#;
        let instance: Instance = serde_json::from_str(text).unwrap();
        assert_eq!(instance.instance_type, "p5.48xlarge");
        assert_eq!(instance.pool(), "gpu");
        assert_eq!(instance.role_name(), Some("node"));
        assert_eq!(instance.account(), "123456789012");
        let untagged = Instance { tags: BTreeMap::new(), ..instance };
        assert_eq!(untagged.pool(), "gpu-ng");
    }

    #[test]
    fn what_may_heal_is_told_from_what_will_not() {
        let refused = |status| EmulatorError::Refused { call: "x".into(), status, body: "".into() };
        assert!(refused(503).is_transient() && refused(429).is_transient());
        assert!(!refused(403).is_transient() && !refused(404).is_transient());
    }
}
