//! User data as EC2 hands it out, taken apart as cloud-init and nodeadm do: base64, gzip, MIME.
//!
//! Decoding only: what the parts mean is the business of [`crate::instances::intake`] and of
//! [`crate::nodeadm_standin`].

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use thiserror::Error;

/// No user data unpacks to more: EC2 takes 16 KiB of it.
const UNPACKED_MAX: u64 = 4 << 20;

/// Why user data could not be taken apart.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UserDataError {
    /// It is not base64 where it has to be.
    #[error("{0} is not base64")]
    NotBase64(&'static str),
    /// The gzip stream is broken or far too large.
    #[error("the gzip stream in {0} is broken")]
    BrokenGzip(&'static str),
    /// It is not text.
    #[error("{0} is not UTF-8 text")]
    NotText(&'static str),
    /// A multipart document without a boundary.
    #[error("the multipart header names no boundary")]
    NoBoundary,
    /// The last boundary is missing, so the end is.
    #[error("the user data is cut off: the closing boundary `--{0}--` is missing")]
    Truncated(String),
}

/// One part of multipart user data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Media type without parameters, in lower case.
    pub media_type: String,
    /// The content, with its transfer encoding taken off.
    pub content: Vec<u8>,
}

/// What a document turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// MIME multipart.
    Multipart(Vec<Part>),
    /// Anything else, as it is.
    Plain(Vec<u8>),
}

/// The bytes that IMDS serves: what the launch template holds, without its base64.
///
/// # Errors
/// When it is not base64.
pub fn from_base64(text: &str) -> Result<Vec<u8>, UserDataError> {
    let compact: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(compact).map_err(|_| UserDataError::NotBase64("the instance's user data"))
}

/// Takes a document apart: base64 and gzip around it, if any, then MIME.
///
/// # Errors
/// When it is compressed or MIME, and broken.
pub fn parse(raw: &[u8]) -> Result<Document, UserDataError> {
    let raw = unwrap(raw, "the user data")?;
    let Ok(text) = std::str::from_utf8(&raw) else { return Ok(Document::Plain(raw)) };
    let (headers, body) = split_headers(text);
    let Some(content_type) = header(&headers, "content-type") else {
        return Ok(Document::Plain(raw));
    };
    if !media_type(content_type).starts_with("multipart/") {
        return Ok(Document::Plain(raw));
    }
    let boundary = parameter(content_type, "boundary").ok_or(UserDataError::NoBoundary)?;
    parts(body, &boundary).map(Document::Multipart)
}

/// Takes base64 and gzip off where they are.
fn unwrap(raw: &[u8], what: &'static str) -> Result<Vec<u8>, UserDataError> {
    let compact: Vec<u8> = raw.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let decoded = match STANDARD.decode(&compact) {
        Ok(decoded) if !compact.is_empty() => decoded,
        _ => raw.to_vec(),
    };
    if !decoded.starts_with(&[0x1f, 0x8b]) {
        return Ok(decoded);
    }
    let mut unpacked = Vec::new();
    let mut reader = GzDecoder::new(decoded.as_slice()).take(UNPACKED_MAX);
    match reader.read_to_end(&mut unpacked) {
        Ok(length) if (length as u64) < UNPACKED_MAX => Ok(unpacked),
        _ => Err(UserDataError::BrokenGzip(what)),
    }
}

fn parts(body: &str, boundary: &str) -> Result<Vec<Part>, UserDataError> {
    let (open, close) = (format!("--{boundary}"), format!("--{boundary}--"));
    let mut parts = Vec::new();
    let mut current: Option<String> = None;
    for line in body.split_inclusive('\n') {
        let bare = line.trim_end();
        if bare != open && bare != close {
            if let Some(part) = &mut current {
                part.push_str(line);
            }
            continue;
        }
        if let Some(part) = current.take() {
            parts.push(one_part(&part)?);
        }
        if bare == close {
            return Ok(parts);
        }
        current = Some(String::new());
    }
    Err(UserDataError::Truncated(boundary.to_owned()))
}

fn one_part(text: &str) -> Result<Part, UserDataError> {
    let (headers, body) = split_headers(text);
    let kind = header(&headers, "content-type").unwrap_or("text/plain");
    let encoding = header(&headers, "content-transfer-encoding").unwrap_or("7bit");
    // The line break before a boundary belongs to the boundary.
    let body = body.strip_suffix('\n').map_or(body, |b| b.strip_suffix('\r').unwrap_or(b));
    let content = if encoding.trim().eq_ignore_ascii_case("base64") {
        let compact: String = body.split_ascii_whitespace().collect();
        STANDARD.decode(compact).map_err(|_| UserDataError::NotBase64("a part of the user data"))?
    } else {
        body.as_bytes().to_vec()
    };
    Ok(Part { media_type: media_type(kind), content: unwrap(&content, "a part")? })
}

/// Splits at the first empty line; folded header lines are joined. Without a header at the top,
/// all of it is body.
fn split_headers(text: &str) -> (Vec<(String, String)>, &str) {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        let bare = line.trim_end_matches('\r');
        if bare.is_empty() {
            return (headers, after);
        }
        if let Some(last) = headers.last_mut()
            && bare.starts_with([' ', '\t'])
        {
            last.1.push(' ');
            last.1.push_str(bare.trim());
        } else if let Some((name, value)) = bare.split_once(':')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        } else {
            return (Vec::new(), text);
        }
        rest = after;
    }
    (Vec::new(), text)
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// Applies a JSON merge patch (RFC 7396): objects are merged, null removes, all else replaces.
pub(crate) fn merge_patch(target: &mut serde_json::Value, patch: &serde_json::Value) {
    let serde_json::Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = serde_json::json!({});
    }
    if let serde_json::Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.shift_remove(key);
            } else {
                merge_patch(target.entry(key.clone()).or_insert(serde_json::Value::Null), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const MULTIPART: &str = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=\"//\"\r\n\r\n\
        --//\r\nContent-Type: text/cloud-config; charset=\"us-ascii\"\r\n\r\n#cloud-config\r\na: 1\r\n\
        --//\r\nContent-Type: application/node.eks.aws\r\nContent-Transfer-Encoding: base64\r\n\r\naGVs\r\nbG8=\r\n\
        --//--\r\n";

    fn multipart() -> Document {
        Document::Multipart(vec![
            Part {
                media_type: "text/cloud-config".into(),
                content: b"#cloud-config\r\na: 1".to_vec(),
            },
            Part { media_type: "application/node.eks.aws".into(), content: b"hello".to_vec() },
        ])
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn multipart_is_taken_apart_whatever_is_around_it() {
        let gzipped = gzip(MULTIPART.as_bytes());
        let cases = [
            MULTIPART.as_bytes().to_vec(),
            MULTIPART.replace("\r\n", "\n").replace("config\n", "config\r\n").into_bytes(),
            STANDARD.encode(MULTIPART).into_bytes(),
            gzipped.clone(),
            STANDARD.encode(gzipped).into_bytes(),
        ];
        for case in cases {
            assert_eq!(parse(&case).unwrap(), multipart(), "{}", String::from_utf8_lossy(&case));
        }
    }

    #[test]
    fn what_is_not_multipart_stays_as_it_is() {
        for text in ["#!/bin/sh\necho a: b\n", "#cloud-config\n", "", "apiVersion: x\nkind: y\n"] {
            assert_eq!(parse(text.as_bytes()).unwrap(), Document::Plain(text.into()), "{text:?}");
        }
        let binary = [0xff_u8, 0xfe, 0];
        assert_eq!(parse(&binary).unwrap(), Document::Plain(binary.to_vec()));
    }

    #[test]
    fn broken_user_data_is_named() {
        let cut = |n: usize| MULTIPART.as_bytes()[..MULTIPART.len() - n].to_vec();
        let cases = [
            (cut(8), UserDataError::Truncated("//".into())),
            (cut(40), UserDataError::Truncated("//".into())),
            (MULTIPART.replace(" boundary", " limit").into_bytes(), UserDataError::NoBoundary),
            (
                MULTIPART.replace("aGVs", "a-b").into_bytes(),
                UserDataError::NotBase64("a part of the user data"),
            ),
            (gzip(b"hello")[..12].to_vec(), UserDataError::BrokenGzip("the user data")),
        ];
        for (data, expected) in cases {
            assert_eq!(parse(&data).unwrap_err(), expected);
        }
        assert_eq!(
            from_base64("not base64!").unwrap_err(),
            UserDataError::NotBase64("the instance's user data")
        );
        assert_eq!(from_base64("aGVs\nbG8=\n").unwrap(), b"hello");
    }
}
