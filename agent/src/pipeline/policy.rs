//! The pool's policy, as the node knows it: read from Parameter Store before a gate closes, the last
//! copy on the disk when that cannot be reached. A healthy node never asks.

use std::time::Duration;

use contract::names::{JOIN_STATE_DIR, policy_parameter};
use contract::{AgentConfig, ErrorChain, PoolPolicy};
use tokio::time::{sleep, timeout};

use crate::aws::ssm::{ParameterError, ParameterStore};
use crate::host::{Root, chance, files};

/// How long Parameter Store may take before the copy on the disk decides.
const ANSWER: Duration = Duration::from_secs(4);

/// The longest pause before it is asked again when it has refused for the many that ask: GetParameter
/// takes some forty calls a second for the whole account, and a pool that fails as one asks as one.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the policy of the node's pool is.
#[derive(Clone, Debug)]
pub struct PolicySource {
    store: ParameterStore,
    name: String,
    root: Root,
}

impl PolicySource {
    /// The policy of the pool that `config` names.
    #[must_use]
    pub fn new(store: ParameterStore, config: &AgentConfig, root: &Root) -> Self {
        let name = policy_parameter(&config.cluster, &config.pool);
        Self { store, name, root: root.clone() }
    }

    /// The policy as it is now, as far as that can be known.
    pub async fn read(&self) -> PoolPolicy {
        match timeout(ANSWER, self.ask()).await {
            Ok(Ok(Some(text))) => match serde_json::from_str(&text) {
                Ok(policy) => {
                    self.keep(text.as_bytes());
                    policy
                }
                Err(error) => {
                    tracing::warn!(%error, name = self.name, "the pool's policy is unreadable");
                    self.last()
                }
            },
            Ok(Ok(None)) => {
                if let Err(error) = files::remove(&self.path()) {
                    tracing::warn!(error = %ErrorChain(&error), "an old policy stays");
                }
                PoolPolicy::default()
            }
            Ok(Err(error)) => {
                tracing::info!(%error, "the pool's policy is not read: the last copy decides");
                self.last()
            }
            Err(_) => {
                tracing::info!("the pool's policy does not come: the last copy decides");
                self.last()
            }
        }
    }

    async fn ask(&self) -> Result<Option<String>, ParameterError> {
        loop {
            match self.store.get(&self.name).await {
                Err(error) if error.is_throttled() => sleep(chance::part_of(PAUSE, 0.2)).await,
                answer => return answer,
            }
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.root.path(JOIN_STATE_DIR).join("policy.json")
    }

    fn keep(&self, text: &[u8]) {
        let kept = files::make_dir(&self.root.path(JOIN_STATE_DIR), 0o700)
            .and_then(|()| files::write_atomic(&self.path(), text, 0o600));
        if let Err(error) = kept {
            tracing::warn!(error = %ErrorChain(&error), "the pool's policy was not kept");
        }
    }

    fn last(&self) -> PoolPolicy {
        let text = files::read(&self.path()).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::aws::{Imds, RoleCredentials};
    use crate::testing::http::{Answer, Server};
    use crate::testing::imds_answers;

    #[tokio::test]
    async fn the_last_copy_decides_when_nobody_answers() {
        let said = Arc::new(Mutex::new(Answer::status(500, "{}")));
        let shared = Arc::clone(&said);
        let server = Server::start(move |_| shared.lock().unwrap().clone()).await;
        let imds = Server::start(imds_answers).await;
        let credentials = RoleCredentials::new(Arc::new(Imds::at(&imds.url())));
        let store = ParameterStore::at(Some(server.url()), "us-east-1", credentials, None);
        let dir = tempfile::tempdir().unwrap();
        let config = AgentConfig::new("prod", "h100");
        let source = PolicySource::new(store, &config, &Root::new(dir.path()));
        assert_eq!(source.read().await, PoolPolicy::default(), "nothing was ever read");

        let answer = r#"{"Parameter":{"Value":"{\"version\":1,\"enforce\":\"observe\"}"}}"#;
        *said.lock().unwrap() = Answer::ok(answer);
        let observe = source.read().await;
        assert!(observe.enforce.is_some());
        assert!(server.requests().last().unwrap().contains("/rollcall-control/prod/h100/policy"));
        *said.lock().unwrap() = Answer::status(500, "{}");
        assert_eq!(source.read().await, observe, "the copy");
        *said.lock().unwrap() = Answer::ok(r#"{"Parameter":{"Value":"no JSON"}}"#);
        assert_eq!(source.read().await, observe, "what cannot be read changes nothing");

        let asked = server.requests().len();
        *said.lock().unwrap() = Answer::status(400, r#"{"__type":"ThrottlingException"}"#);
        let heard = async {
            while server.requests().len() < asked + 2 {
                sleep(Duration::from_millis(5)).await;
            }
            *said.lock().unwrap() = Answer::ok(answer);
        };
        let (policy, ()) = tokio::join!(source.read(), heard);
        assert_eq!(policy, observe, "too many asked at once");

        *said.lock().unwrap() = Answer::status(400, r#"{"__type":"ParameterNotFound"}"#);
        assert_eq!(source.read().await, PoolPolicy::default());
        *said.lock().unwrap() = Answer::status(500, "{}");
        assert_eq!(source.read().await, PoolPolicy::default(), "a policy that is gone is gone");
    }
}
