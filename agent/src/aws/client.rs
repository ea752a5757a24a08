//! The client for AWS's public endpoints, made beside everything else.
//!
//! It reads the system's root certificates, a hundred and more: that takes longer than all else that
//! the join does before it asks the metadata service who it is.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use contract::ErrorChain;

/// How long a connection to AWS may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The client, perhaps still in the making.
#[derive(Clone, Debug)]
pub struct AwsClient(Arc<Making>);

#[derive(Debug)]
struct Making {
    thread: Mutex<Option<JoinHandle<reqwest::Client>>>,
    made: OnceLock<reqwest::Client>,
}

impl AwsClient {
    /// Begins to make one that goes through `proxy` where that says so.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn begin(proxy: reqwest::Proxy) -> io::Result<Self> {
        let make = || {
            let client = reqwest::Client::builder().connect_timeout(CONNECT).proxy(proxy).build();
            client.unwrap_or_else(|error| {
                // Without certificates every call fails, and says so; none of them is hard.
                tracing::error!(error = %ErrorChain(&error), "no client for AWS");
                bare()
            })
        };
        let thread = thread::Builder::new().name("aws-client".into()).spawn(make)?;
        Ok(Self::of(Some(thread)))
    }

    /// One that trusts nobody, for plain HTTP.
    #[must_use]
    pub fn plain() -> Self {
        Self::of(None)
    }

    fn of(thread: Option<JoinHandle<reqwest::Client>>) -> Self {
        Self(Arc::new(Making { thread: Mutex::new(thread), made: OnceLock::new() }))
    }

    /// The client, once it is made.
    #[must_use]
    pub fn get(&self) -> reqwest::Client {
        let made = self.0.made.get_or_init(|| {
            let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            thread.and_then(|thread| thread.join().ok()).unwrap_or_else(bare)
        });
        made.clone()
    }
}

fn bare() -> reqwest::Client {
    reqwest::Client::builder().tls_certs_only([]).build().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_early_waits() {
        let proxy = reqwest::Proxy::custom(|_| None::<String>);
        let client = AwsClient::begin(proxy).unwrap();
        let _ = (client.get(), client.get(), AwsClient::plain().get());
    }
}
