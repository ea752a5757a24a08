//! The agent's tarball as `up` publishes it: named by its SHA-256, so that a node can only start what
//! the fleet file's operator uploaded.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::layers::names::digest;
use crate::stack::StackError;

/// A tarball on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Artifact {
    /// Reads and sums the tarball.
    ///
    /// # Errors
    /// [`StackError::File`] when it cannot be read.
    pub async fn read(path: &Path) -> Result<Self, StackError> {
        let bytes = contents(path).await?;
        Ok(Self {
            path: path.to_owned(),
            sha256: digest(&bytes),
            size: bytes.len().try_into().unwrap_or(u64::MAX),
        })
    }

    /// Its key in the bucket.
    #[must_use]
    pub fn key(&self) -> String {
        format!("agent/{}.tar.gz", self.sha256)
    }

    /// Its checksum as S3 writes it.
    #[must_use]
    pub fn s3_checksum(&self) -> String {
        STANDARD.encode(hex::decode(&self.sha256).unwrap_or_default())
    }
}

/// The bytes of the tarball.
pub(super) async fn contents(path: &Path) -> Result<Vec<u8>, StackError> {
    let unreadable = |source| StackError::File { path: path.display().to_string(), source };
    tokio::fs::read(path).await.map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tarball_is_named_by_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.tar.gz");
        std::fs::write(&path, b"abc").unwrap();
        let artifact = Artifact::read(&path).await.unwrap();
        // FIPS 180-4, the one-block example.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(artifact.key(), format!("agent/{sha256}.tar.gz"));
        assert_eq!(artifact.s3_checksum(), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        assert!(Artifact::read(&dir.path().join("none")).await.is_err());
    }
}
