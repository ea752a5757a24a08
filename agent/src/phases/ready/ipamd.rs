//! The VPC CNI's daemon, asked over its introspection endpoint: does it work?

use std::time::Duration;

use crate::host::Deadline;

/// Where ipamd answers about itself; it can be turned off, and is then unknown.
pub const ENDPOINT: &str = "http://127.0.0.1:61679/v1/enis";

/// How long it may take to answer: it reads its own memory.
const ANSWER: Duration = Duration::from_secs(2);

/// How ipamd is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ipamd {
    /// Nobody asked, or nobody listens: it is not up yet, or does not say.
    #[default]
    Unknown,
    /// It answers.
    Answers,
    /// It is there and does not work, and how that shows.
    Ill(String),
}

/// Asks ipamd at `endpoint`.
pub async fn look(endpoint: &str, deadline: Deadline) -> Ipamd {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build();
    let Ok(client) = client else { return Ipamd::Unknown };
    let limit = deadline.remaining().min(ANSWER);
    match client.get(endpoint).timeout(limit).send().await {
        Ok(response) if response.status().is_success() => Ipamd::Answers,
        Ok(response) if response.status().is_server_error() => {
            Ipamd::Ill(format!("ipamd answers {}", response.status()))
        }
        // Another version may have moved the page.
        Ok(_) => Ipamd::Unknown,
        Err(error) if error.is_connect() => Ipamd::Unknown,
        Err(error) if error.is_timeout() && limit < ANSWER => Ipamd::Unknown,
        Err(error) if error.is_timeout() => {
            Ipamd::Ill(format!("ipamd takes connections and says nothing within {limit:?}"))
        }
        Err(error) => Ipamd::Ill(format!("ipamd hangs up: {}", error.without_url())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::http::{Answer, Server};

    #[tokio::test]
    async fn only_one_that_is_there_can_be_ill() {
        let deadline = || Deadline::within(Duration::from_secs(20));
        assert_eq!(look("http://127.0.0.1:1/v1/enis", deadline()).await, Ipamd::Unknown);
        let well = Server::start(|_| Answer::ok("{}")).await;
        assert_eq!(look(&well.url(), deadline()).await, Ipamd::Answers);
        let moved = Server::start(|_| Answer::status(404, "")).await;
        assert_eq!(look(&moved.url(), deadline()).await, Ipamd::Unknown);
        let broken = Server::start(|_| Answer::status(500, "")).await;
        assert!(
            matches!(look(&broken.url(), deadline()).await, Ipamd::Ill(why) if why.contains("500"))
        );
        let silent = Server::start(|_| Answer::Silence).await;
        assert!(matches!(look(&silent.url(), deadline()).await, Ipamd::Ill(why)
            if why.contains("says nothing")));
    }
}
