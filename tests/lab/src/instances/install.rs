//! Fetches the agent from where the user data says, and lets nothing onto the node whose SHA-256
//! is another: what the install script does on a machine.

use std::path::Path;
use std::time::Duration;

use contract::agent_config::Install;
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::aws::{Credentials, Emulator, EmulatorError};

/// How often a fetch is tried before the node gives up, as `curl --retry` in the script.
const ATTEMPTS: u32 = 5;

/// Where the binary is on the node.
pub const AGENT: &str = "usr/bin/rollcall-agent";

/// Why the agent is not on the node.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The place cannot be fetched from.
    #[error("cannot fetch `{0}`: only https://, s3://bucket/key, or http:// to this machine")]
    UnsupportedUrl(String),
    /// The instance has no role to read a bucket with.
    #[error("cannot fetch `{0}`: the instance has no role")]
    NoRole(String),
    /// It could not be fetched.
    #[error("could not fetch `{url}`")]
    Fetch {
        /// From where.
        url: String,
        /// Why not.
        #[source]
        source: EmulatorError,
    },
    /// It is not what the user data names.
    #[error("`{url}` has sha256 `{actual}`, the user data names `{expected}`")]
    WrongChecksum {
        /// From where.
        url: String,
        /// What it is.
        actual: String,
        /// What it should be.
        expected: String,
    },
    /// It is what the user data names, and no tarball.
    #[error("could not unpack `{url}`")]
    Unpack {
        /// From where.
        url: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The tarball has no agent in it.
    #[error("`{0}` holds no usr/bin/rollcall-agent")]
    NoAgent(String),
}

/// Where a tarball is.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Bucket { bucket: &'a str, key: &'a str },
    Web,
}

fn place(url: &str) -> Option<Place<'_>> {
    if let Some(rest) = url.strip_prefix("s3://") {
        let (bucket, key) = rest.split_once('/')?;
        return (!bucket.is_empty() && !key.is_empty()).then_some(Place::Bucket { bucket, key });
    }
    let parsed = url::Url::parse(url).ok()?;
    let local = match parsed.host()? {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    };
    (parsed.scheme() == "https" || parsed.scheme() == "http" && local).then_some(Place::Web)
}

/// Fetches, checks and unpacks the agent into a node.
///
/// # Errors
/// When it is not there, is another one, or is broken; nothing is unpacked then.
pub async fn install(
    root: &Path,
    install: &Install,
    emulator: &Emulator,
    credentials: Option<&Credentials>,
) -> Result<(), InstallError> {
    let tarball = fetch(&install.url, emulator, credentials).await?;
    let (root, install) = (root.to_owned(), install.clone());
    // Hashing and unpacking take their time, which the other nodes' IMDS must not wait for.
    let checked = tokio::task::spawn_blocking(move || {
        check(&tarball, &install)?;
        unpack(&root, &tarball, &install.url)
    });
    checked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// The SHA-256 of a tarball, as user data names it.
#[must_use]
pub fn sha256(tarball: &[u8]) -> String {
    hex::encode(Sha256::digest(tarball))
}

fn check(tarball: &[u8], install: &Install) -> Result<(), InstallError> {
    let actual = sha256(tarball);
    if actual == install.sha256 {
        return Ok(());
    }
    Err(InstallError::WrongChecksum {
        url: install.url.clone(),
        actual,
        expected: install.sha256.clone(),
    })
}

/// Unpacks a tarball that is trusted already, as the image build does for a baked agent.
///
/// # Errors
/// When it is broken or holds no agent.
pub fn unpack(root: &Path, tarball: &[u8], url: &str) -> Result<(), InstallError> {
    let mut archive = tar::Archive::new(GzDecoder::new(tarball));
    archive.set_preserve_permissions(true);
    archive.unpack(root).map_err(|source| InstallError::Unpack { url: url.to_owned(), source })?;
    if root.join(AGENT).is_file() { Ok(()) } else { Err(InstallError::NoAgent(url.to_owned())) }
}

async fn fetch(
    url: &str,
    emulator: &Emulator,
    credentials: Option<&Credentials>,
) -> Result<Vec<u8>, InstallError> {
    let place = place(url).ok_or_else(|| InstallError::UnsupportedUrl(url.to_owned()))?;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let fetched = match place {
            Place::Bucket { bucket, key } => {
                let credentials =
                    credentials.ok_or_else(|| InstallError::NoRole(url.to_owned()))?;
                emulator.get_object(bucket, key, credentials).await
            }
            Place::Web => emulator.fetch_elsewhere(url).await,
        };
        match fetched {
            Ok(tarball) => return Ok(tarball),
            Err(error) if attempt < ATTEMPTS && error.is_transient() => {
                tracing::debug!(url, %error, attempt, "fetch failed, trying again");
                tokio::time::sleep(Duration::from_millis(200) * attempt).await;
            }
            Err(source) => return Err(InstallError::Fetch { url: url.to_owned(), source }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A tarball with a file `path` of the given content.
    pub(crate) fn tarball(path: &str, content: &[u8]) -> Vec<u8> {
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(encoder);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, content).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn emulator() -> Emulator {
        let operator = Credentials {
            access_key_id: "AKID".into(),
            secret_access_key: "secret".into(),
            session_token: None,
        };
        Emulator::new("http://127.0.0.1:9".into(), "us-east-1".into(), operator)
    }

    /// A server that hands out `body` under each path; `/missing` is not there.
    async fn serve(body: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router =
            axum::Router::new().route("/agent", axum::routing::get(move || async move { body }));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    #[test]
    fn places() {
        let bucket = |bucket, key| Some(Place::Bucket { bucket, key });
        let cases = [
            ("s3://bucket/a/b.tar.gz", bucket("bucket", "a/b.tar.gz")),
            ("s3://bucket/", None),
            ("s3://bucket", None),
            ("https://example.com/a", Some(Place::Web)),
            ("http://127.0.0.1:80/a", Some(Place::Web)),
            ("http://localhost/a", Some(Place::Web)),
            ("http://example.com/a", None),
            ("file:///etc/passwd", None),
            ("nonsense", None),
        ];
        for (url, expected) in cases {
            assert_eq!(place(url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn only_the_named_tarball_gets_onto_the_node() {
        let good = tarball(AGENT, b"#!/bin/sh\n");
        let url = format!("{}/agent", serve(good.clone()).await);
        let sha256 = hex::encode(Sha256::digest(&good));
        let root = tempfile::tempdir().unwrap();

        let wrong = Install { url: url.clone(), sha256: "00".repeat(32) };
        let error = super::install(root.path(), &wrong, &emulator(), None).await.unwrap_err();
        assert!(error.to_string().contains(&sha256), "{error}");
        assert!(!root.path().join(AGENT).exists());

        let right = Install { url, sha256 };
        super::install(root.path(), &right, &emulator(), None).await.unwrap();
        assert_eq!(std::fs::read(root.path().join(AGENT)).unwrap(), b"#!/bin/sh\n");
    }

    #[tokio::test]
    async fn what_cannot_be_fetched_is_named() {
        let root = tempfile::tempdir().unwrap();
        let base = serve(tarball("etc/other", b"x")).await;
        let other = hex::encode(Sha256::digest(tarball("etc/other", b"x")));
        let cases = [
            (format!("{base}/missing"), "00", "404"),
            (format!("{base}/agent"), other.as_str(), "holds no usr/bin/rollcall-agent"),
            ("s3://bucket/key".to_owned(), "00", "has no role"),
            ("ftp://example.com/a".to_owned(), "00", "only https://"),
        ];
        for (url, sha256, expected) in cases {
            let install = Install { url, sha256: sha256.into() };
            let error = super::install(root.path(), &install, &emulator(), None).await.unwrap_err();
            let text = contract::error_chain::ErrorChain(&error).to_string();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn garbage_with_the_right_checksum_is_not_unpacked() {
        let root = tempfile::tempdir().unwrap();
        let error = unpack(root.path(), b"garbage", "u").unwrap_err();
        assert!(matches!(error, InstallError::Unpack { .. }), "{error}");
    }
}
