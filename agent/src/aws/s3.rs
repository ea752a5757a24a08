//! S3: where a failed join's evidence goes when the fleet names a bucket.

use reqwest::Method;

use super::signed::{Call, CallError, Service};
use crate::host::Deadline;

/// S3 in the node's region, addressed by path.
#[derive(Clone, Debug)]
pub struct S3(pub Service);

impl S3 {
    /// Writes an object.
    ///
    /// # Errors
    /// As [`CallError`] lists.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Vec<u8>,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        let path = object_path(bucket, key);
        let call =
            Call { method: Method::PUT, path: &path, content_type: "application/gzip", body };
        self.0.send(&call, deadline).await.map(drop)
    }
}

/// Path of an object: everything but unreserved characters and the slashes is escaped, as S3 signs it.
fn object_path(bucket: &str, key: &str) -> String {
    let escape = |segment: &str| -> String {
        let byte = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        };
        segment.bytes().map(byte).collect()
    };
    let key: Vec<String> = key.split('/').map(escape).collect();
    format!("/{bucket}/{}", key.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_segment_by_segment() {
        assert_eq!(
            object_path("b", "evidence/prod/arn:aws:ec2:us-east-1:1:instance/i-1/a b.gz"),
            "/b/evidence/prod/arn%3Aaws%3Aec2%3Aus-east-1%3A1%3Ainstance/i-1/a%20b.gz"
        );
    }
}
