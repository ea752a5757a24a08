//! The cluster as its user sees it: through the kubeconfig and the tokens that `control` makes.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::ExitCode;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::World;

/// A token lives for a minute.
const TOKEN_SERVES: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);

/// A client of the API server.
#[derive(Debug)]
pub struct Cluster {
    http: reqwest::Client,
    server: String,
    /// What the kubeconfig has kubectl run for a token, without the program.
    exec: Vec<String>,
    token: Mutex<Option<(Instant, String)>>,
}

/// A Node object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeObject {
    /// Its name, which is the instance's private DNS name.
    pub name: String,
    /// Whether its condition Ready is True.
    pub ready: bool,
    /// The boot that kubelet has reported.
    pub boot: String,
}

impl Cluster {
    /// The fleet's cluster.
    ///
    /// # Errors
    /// When `control` writes no kubeconfig, or one that cannot be used.
    pub async fn of(world: &World) -> anyhow::Result<Self> {
        let printed = world.control(&["kubeconfig", "--kubeconfig", "-"]).await?;
        let text = printed.expect(ExitCode::Success)?.stdout;
        let config: Value = serde_yaml::from_str(&text).context("a kubeconfig is no YAML")?;
        let cluster = &config["clusters"][0]["cluster"];
        let text = |key: &str| cluster[key].as_str().with_context(|| format!("no `{key}`"));
        let ca = STANDARD.decode(text("certificate-authority-data")?).context("a CA in base64")?;
        let ca = reqwest::Certificate::from_pem(&ca).context("a CA that is no certificate")?;
        let http = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(PATIENCE);
        let http = http.build().context("could not make a client for the API server")?;
        let exec = config["users"][0]["user"]["exec"]["args"].as_array().context("no exec")?;
        let exec = exec.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
        Ok(Self { http, server: text("server")?.to_owned(), exec, token: Mutex::default() })
    }

    async fn token(&self, world: &World) -> anyhow::Result<String> {
        let mut kept = self.token.lock().await;
        if let Some((since, token)) = kept.as_ref()
            && since.elapsed() < TOKEN_SERVES
        {
            return Ok(token.clone());
        }
        let exec: Vec<&str> = self.exec.iter().map(String::as_str).collect();
        let credential = world.control(&exec).await?.expect(ExitCode::Success)?.json()?;
        let token = credential["status"]["token"].as_str().context("no token")?.to_owned();
        *kept = Some((Instant::now(), token.clone()));
        Ok(token)
    }

    /// One request, and the object that answers it; a patch is a strategic merge.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub async fn call(
        &self,
        world: &World,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.server);
        let method: reqwest::Method = method.parse().context("a method of HTTP")?;
        let kind = match method {
            reqwest::Method::PATCH => "application/strategic-merge-patch+json",
            _ => "application/json",
        };
        let mut request = self.http.request(method, &url).bearer_auth(self.token(world).await?);
        if let Some(body) = body {
            request = request.header("content-type", kind).body(body.to_string());
        }
        let answer = request.send().await.with_context(|| format!("no answer from `{url}`"))?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        ensure!(status.is_success(), "`{url}` answered {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("`{url}` answered no object"))
    }

    /// All Node objects.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn nodes(&self, world: &World) -> anyhow::Result<Vec<NodeObject>> {
        let list = self.call(world, "GET", "/api/v1/nodes", None).await?;
        Ok(list["items"].as_array().into_iter().flatten().map(NodeObject::of).collect())
    }

    /// Makes an object at a path of the API: `api/v1/namespaces/default/services`.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn create(&self, world: &World, path: &str, object: &Value) -> anyhow::Result<()> {
        let url = format!("{}/{path}", self.server);
        let request = self.http.post(&url).bearer_auth(self.token(world).await?).json(object);
        let answer = request.send().await.with_context(|| format!("no answer from `{url}`"))?;
        let status = answer.status();
        ensure!(status.is_success(), "`{url}` answered {status}: {}", answer.text().await?);
        Ok(())
    }

    /// One Node object; none when there is none.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn node(&self, world: &World, name: &str) -> anyhow::Result<Option<NodeObject>> {
        Ok(self.nodes(world).await?.into_iter().find(|node| node.name == name))
    }
}

impl NodeObject {
    fn of(node: &Value) -> Self {
        let conditions = node["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            name: text(&node["metadata"]["name"]),
            ready: conditions.any(|c| c["type"] == "Ready" && c["status"] == "True"),
            boot: text(&node["status"]["nodeInfo"]["bootID"]),
        }
    }
}
