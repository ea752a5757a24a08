//! Signed calls to services of which `control` needs too little for their SDK: two or three
//! operations each of load balancing, tagging and logs.

use std::time::SystemTime;

use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde_json::Value;

use crate::aws::clients::{ATTEMPTS, FIRST_BACKOFF, LONGEST_BACKOFF};
use crate::aws::connector::{ATTEMPT, CONNECT};
use crate::aws::error::{AwsError, refused};
use crate::aws::{Clients, partition};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A service of AWS in the fleet's region.
#[derive(Clone, Debug)]
pub struct Service<'a> {
    clients: &'a Clients,
    /// As it is signed for: `elasticloadbalancing`.
    name: &'static str,
    url: String,
    attempts: u32,
}

struct Request<'a> {
    operation: &'a str,
    headers: Vec<(&'static str, &'a str)>,
    body: Vec<u8>,
}

impl<'a> Service<'a> {
    /// The service of that name; its endpoint is the environment's, else AWS's own.
    #[must_use]
    pub fn of(clients: &'a Clients, name: &'static str) -> Self {
        let own = || {
            let region = &clients.region;
            let suffix = partition::of_region(region).map_or("amazonaws.com", |p| p.suffix);
            format!("https://{name}.{region}.{suffix}")
        };
        let url = clients.endpoint.clone().unwrap_or_else(own);
        let url = format!("{}/", url.trim_end_matches('/'));
        Self { clients, name, url, attempts: ATTEMPTS }
    }

    /// The same for a question that can go unanswered: a closed network has no way to some services,
    /// and nobody waits minutes to hear so.
    #[must_use]
    pub fn briefly(self) -> Self {
        Self { attempts: 2, ..self }
    }

    /// One operation of AWS's JSON protocol: `Logs_20140328.DescribeLogGroups`.
    ///
    /// # Errors
    /// [`AwsError`] when it does not answer or refuses.
    pub async fn json(
        &self,
        target: &str,
        body: &Value,
        attempted: impl Fn() -> String,
    ) -> Result<Value, AwsError> {
        let headers =
            vec![("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
        let operation = target.rsplit('.').next().unwrap_or(target);
        let request = Request { operation, headers, body: body.to_string().into_bytes() };
        let text = self.send(&request, &attempted).await?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|source| AwsError::Unreachable {
            attempted: attempted(),
            source: source.into(),
        })
    }

    /// One operation of AWS's query protocol; the answer is XML.
    ///
    /// # Errors
    /// [`AwsError`] when it does not answer or refuses.
    pub async fn query(
        &self,
        parameters: &[(&str, &str)],
        attempted: impl Fn() -> String,
    ) -> Result<String, AwsError> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(parameters).finish();
        let headers = vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let action = parameters.iter().find(|(key, _)| *key == "Action");
        let operation = action.map_or("", |(_, operation)| operation);
        self.send(&Request { operation, headers, body: form.into_bytes() }, &attempted).await
    }

    /// Asks again as the SDK does for the other services.
    async fn send(
        &self,
        request: &Request<'_>,
        attempted: &impl Fn() -> String,
    ) -> Result<String, AwsError> {
        let mut pause = FIRST_BACKOFF;
        for attempt in 1.. {
            self.clients.gate.pass(self.name, request.operation).await;
            let ended = self.attempt(request, attempted).await;
            match ended {
                Err(ref error) if attempt < self.attempts && is_passing(error) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_BACKOFF);
                }
                ended => return ended,
            }
        }
        unreachable!("the last attempt has returned")
    }

    async fn attempt(
        &self,
        request: &Request<'_>,
        attempted: &impl Fn() -> String,
    ) -> Result<String, AwsError> {
        let unreachable = |source: Failed| AwsError::Unreachable { attempted: attempted(), source };
        let signed = self.sign(request, SystemTime::now()).await;
        let sent = signed.map_err(unreachable)?.timeout(ATTEMPT).send().await;
        let answer = sent.map_err(|error| unreachable(error.without_url().into()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| unreachable(e.without_url().into()))?;
        if status.is_success() {
            return Ok(text);
        }
        let (code, words) = code_and_words(&text);
        Err(refused(attempted(), code, words))
    }

    async fn sign(
        &self,
        request: &Request<'_>,
        now: SystemTime,
    ) -> Result<reqwest::RequestBuilder, Failed> {
        let url = url::Url::parse(&self.url)?;
        let host = url.host_str().ok_or("the endpoint has no host")?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let identity = self.clients.credentials.provide_credentials().await?.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.clients.region)
            .name(self.name)
            .time(now)
            .settings(SigningSettings::default())
            .build()?
            .into();
        let mut headers = vec![("host", host.as_str())];
        headers.extend(&request.headers);
        let body = SignableBody::Bytes(&request.body);
        let signable = SignableRequest::new("POST", url.as_str(), headers.iter().copied(), body)?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        let http = reqwest::Client::builder().connect_timeout(CONNECT).build()?;
        let mut call = http.post(url).body(request.body.clone());
        for (name, value) in &request.headers {
            call = call.header(*name, *value);
        }
        for (name, value) in instructions.headers() {
            call = call.header(name, value);
        }
        Ok(call)
    }
}

/// Whether another attempt may go through.
fn is_passing(error: &AwsError) -> bool {
    match error {
        AwsError::Unreachable { .. } => true,
        AwsError::Refused { code, .. } => {
            let codes = ["Throttl", "RequestLimitExceeded", "Internal", "ServiceUnavailable"];
            codes.iter().any(|passing| code.contains(passing))
        }
        _ => false,
    }
}

/// The service's own code and words: JSON, or the XML of the query protocol.
fn code_and_words(text: &str) -> (Option<String>, Option<String>) {
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let word = |keys: [&str; 2]| keys.iter().find_map(|key| value[*key].as_str());
        let code = word(["__type", "code"]).map(|code| {
            // `com.amazonaws.logs#ResourceNotFoundException`.
            code.rsplit('#').next().unwrap_or(code).to_owned()
        });
        return (code, word(["message", "Message"]).map(str::to_owned));
    }
    (between(text, "Code"), between(text, "Message"))
}

/// The text of an XML element, the first of its name.
fn between(text: &str, element: &str) -> Option<String> {
    let rest = text.split_once(&format!("<{element}>"))?.1;
    Some(rest.split_once(&format!("</{element}>"))?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_in_both_protocols() {
        let read = |text| {
            let (code, words) = code_and_words(text);
            (code.unwrap_or_default(), words.unwrap_or_default())
        };
        let json = r#"{"__type":"com.amazonaws.logs#ResourceNotFoundException","message":"none"}"#;
        assert_eq!(read(json), ("ResourceNotFoundException".into(), "none".into()));
        let xml = "<ErrorResponse><Error><Type>Sender</Type><Code>LoadBalancerNotFound</Code>\
                   <Message>One or more not found</Message></Error></ErrorResponse>";
        assert_eq!(read(xml), ("LoadBalancerNotFound".into(), "One or more not found".into()));
        assert_eq!(read("<html>502</html>"), (String::new(), String::new()));
    }

    #[test]
    fn what_may_pass_is_asked_again() {
        let of = |code: &str| refused("x".into(), Some(code.into()), None);
        assert!(is_passing(&of("ThrottlingException")) && is_passing(&of("InternalFailure")));
        assert!(!is_passing(&of("AccessDenied")) && !is_passing(&of("LoadBalancerNotFound")));
    }
}
