//! User data: what it holds, however it is wrapped.
//!
//! As nodeadm reads it: base64 or not, gzip or not, MIME with several parts or one NodeConfig alone;
//! a part may be wrapped again. Every size is bounded.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::names::{AGENT_CONFIG_PATH, MIME_CLOUD_CONFIG, MIME_NODE_CONFIG};
use serde::Deserialize;

/// The largest document that unwrapping may yield: 16 KiB of gzip can hide gigabytes.
const UNWRAPPED_MAX: u64 = 2 * 1024 * 1024;

/// The most parts that are looked at.
const PARTS_MAX: usize = 256;

/// What was found in the user data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserData {
    /// Every NodeConfig, in order.
    pub node_configs: Vec<String>,
    /// The agent's configuration, as a cloud-config part would write it.
    pub agent_config: Option<String>,
    /// What could not be read, with its place.
    pub problems: Vec<String>,
    /// Whether it is MIME with several parts.
    pub is_mime: bool,
}

/// Takes the user data apart.
#[must_use]
pub fn parse(bytes: &[u8]) -> UserData {
    let mut found = UserData::default();
    let text = match unwrap(bytes) {
        Ok(text) => text,
        Err(problem) => {
            found.problems.push(problem);
            return found;
        }
    };
    let Some(boundary) = boundary(&text) else {
        if !text.trim().is_empty() {
            found.node_configs.push(text);
        }
        return found;
    };
    found.is_mime = true;
    for (number, part) in parts(&text, &boundary).into_iter().take(PARTS_MAX).enumerate() {
        if let Err(problem) = found.take(&part) {
            found.problems.push(format!("part {}: {problem}", number + 1));
        }
    }
    found
}

impl UserData {
    fn take(&mut self, part: &Part) -> Result<(), String> {
        match part.media_type().as_str() {
            MIME_NODE_CONFIG => self.node_configs.push(part.text()?),
            MIME_CLOUD_CONFIG => {
                if let Some(config) = agent_config(&part.text()?)? {
                    self.agent_config = Some(config);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

struct Part {
    head: Vec<(String, String)>,
    body: String,
}

impl Part {
    fn media_type(&self) -> String {
        let value = self.head.iter().find(|(key, _)| key == "content-type");
        let value = value.map_or("", |(_, value)| value);
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    fn text(&self) -> Result<String, String> {
        unwrap(self.body.as_bytes())
    }
}

/// Takes off base64 and gzip, as far as they go, and what else editors put around text.
fn unwrap(bytes: &[u8]) -> Result<String, String> {
    let mut bytes = bytes.to_vec();
    for _ in 0..4 {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(bytes.as_slice())
                .take(UNWRAPPED_MAX + 1)
                .read_to_end(&mut plain)
                .map_err(|error| format!("gzip that cannot be read: {error}"))?;
            if plain.len() as u64 > UNWRAPPED_MAX {
                return Err(format!("gzip of more than {UNWRAPPED_MAX} bytes"));
            }
            bytes = plain;
        } else if let Some(plain) = base64_text(&bytes) {
            bytes = plain;
        } else {
            break;
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.replace("\r\n", "\n"))
}

/// The bytes behind base64; none for what is not base64, which any NodeConfig's colons show.
fn base64_text(bytes: &[u8]) -> Option<Vec<u8>> {
    let dense: Vec<u8> = bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    if dense.len() < 4 { None } else { STANDARD.decode(dense).ok() }
}

/// The boundary of a MIME document with several parts.
fn boundary(text: &str) -> Option<String> {
    let (head, _) = head(text.trim_start());
    let (_, value) = head.iter().find(|(key, _)| key == "content-type")?;
    let (media_type, parameters) = value.split_once(';')?;
    if !media_type.trim().to_ascii_lowercase().starts_with("multipart/") {
        return None;
    }
    parameters.split(';').find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (key.trim().eq_ignore_ascii_case("boundary") && !value.is_empty()).then(|| value.to_owned())
    })
}

/// Headers up to the blank line, with lower-case names and folded lines joined, and what follows.
fn head(text: &str) -> (Vec<(String, String)>, &str) {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        if line.trim().is_empty() {
            return (headers, after);
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = headers.last_mut() {
                *value += line;
            }
        } else if let Some((name, value)) = line.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        } else {
            break;
        }
        rest = after;
    }
    (headers, rest)
}

fn parts(text: &str, boundary: &str) -> Vec<Part> {
    let opening = format!("--{boundary}");
    let closing = format!("--{boundary}--");
    let mut parts = Vec::new();
    let mut start = None;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        if bare == opening || bare == closing {
            if let Some(start) = start {
                parts.push(part(&text[start..offset]));
            }
            start = (bare == opening).then_some(offset + line.len());
        }
        offset += line.len();
    }
    if let Some(start) = start {
        // Truncated before its closing boundary: what is there counts, as for Go's reader.
        parts.push(part(&text[start.min(text.len())..]));
    }
    parts
}

fn part(text: &str) -> Part {
    let (head, body) = head(text);
    Part { head, body: body.to_owned() }
}

#[derive(Deserialize)]
struct CloudConfig {
    #[serde(default)]
    write_files: Vec<WriteFile>,
}

#[derive(Deserialize)]
struct WriteFile {
    path: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    encoding: String,
}

/// What cloud-init would write to the agent's configuration file; the last entry wins, as there.
fn agent_config(text: &str) -> Result<Option<String>, String> {
    let config: CloudConfig =
        serde_yaml::from_str(text).map_err(|error| format!("cloud-config: {error}"))?;
    let Some(file) = config.write_files.into_iter().rfind(|file| file.path == AGENT_CONFIG_PATH)
    else {
        return Ok(None);
    };
    let plain = matches!(file.encoding.as_str(), "" | "text/plain");
    if plain { Ok(Some(file.content)) } else { unwrap(file.content.as_bytes()).map(Some) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const NODE: &str = "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: {}\n";

    fn mime(parts: &[(&str, &str)]) -> String {
        let mut text =
            String::from("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n");
        for (kind, body) in parts {
            text += &format!("--//\nContent-Type: {kind}; charset=\"us-ascii\"\n\n{body}\n");
        }
        text + "--//--\n"
    }

    fn cloud_config(content: &str) -> String {
        let indented = content.replace('\n', "\n      ");
        format!(
            "#cloud-config\nwrite_files:\n  - path: /etc/rollcall/agent.yaml\n    content: |\n      {indented}"
        )
    }

    fn whole() -> String {
        mime(&[
            ("text/cloud-config", &cloud_config("version: 1\ncluster: prod")),
            ("text/x-shellscript", "#!/bin/sh\nexit 0\n"),
            ("application/node.eks.aws", NODE),
        ])
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reads_our_own_user_data_however_it_is_wrapped() {
        let expected = parse(whole().as_bytes());
        assert_eq!(expected.node_configs.len(), 1);
        assert!(expected.node_configs[0].starts_with(NODE.trim_end()));
        assert_eq!(expected.agent_config.as_deref(), Some("version: 1\ncluster: prod\n"));
        assert_eq!(expected.problems, Vec::<String>::new());
        assert!(expected.is_mime);
        for (wrapped, how) in [
            (STANDARD.encode(whole()).into_bytes(), "base64"),
            (gzip(&whole()), "gzip"),
            (STANDARD.encode(gzip(&whole())).into_bytes(), "base64 of gzip"),
            (whole().replace('\n', "\r\n").into_bytes(), "CRLF"),
            (format!("\u{feff}{}", whole()).into_bytes(), "a BOM"),
            (whole().replace("--//--\n", "").into_bytes(), "cut before the end"),
            (
                whole().replace("mixed; boundary", "mixed;\n  boundary").into_bytes(),
                "a folded header",
            ),
        ] {
            assert_eq!(parse(&wrapped), expected, "{how}");
        }
    }

    #[test]
    fn a_part_may_be_wrapped_itself() {
        let encoded = STANDARD.encode(gzip(NODE));
        let found = parse(mime(&[("application/node.eks.aws", &encoded)]).as_bytes());
        assert_eq!(found.node_configs, [NODE]);
    }

    #[test]
    fn every_node_config_counts_in_order() {
        let found = parse(
            mime(&[("application/node.eks.aws", "a: 1"), ("application/node.eks.aws", "a: 2")])
                .as_bytes(),
        );
        assert_eq!(
            found.node_configs.iter().map(|c| c.trim()).collect::<Vec<_>>(),
            ["a: 1", "a: 2"]
        );
    }

    #[test]
    fn a_document_alone_is_a_node_config() {
        let found = parse(NODE.as_bytes());
        assert_eq!(found.node_configs, [NODE]);
        assert!(!found.is_mime);
    }

    #[test]
    fn broken_user_data_is_a_problem_and_never_a_panic() {
        assert_eq!(parse(b""), UserData::default());
        assert!(parse(&[0x1f, 0x8b, 1, 2, 3]).problems[0].contains("gzip"));
        assert!(parse(&[0xff, 0xfe, 0, 1]).problems[0].contains("not text"));
        let bomb = gzip(&"a".repeat(usize::try_from(UNWRAPPED_MAX).unwrap() + 10));
        assert!(parse(&bomb).problems[0].contains("more than"));
        let broken = parse(mime(&[("text/cloud-config", "write_files: 7")]).as_bytes());
        assert!(broken.problems[0].starts_with("part 1: cloud-config"), "{broken:?}");
        for end in 0..whole().len() {
            let _ = parse(&whole().as_bytes()[..end]);
        }
    }

    #[test]
    fn files_of_other_paths_are_not_ours() {
        let text = cloud_config("x: 1").replace("rollcall", "other");
        assert_eq!(agent_config(&text), Ok(None));
        let encoded = format!(
            "write_files: [{{path: /etc/rollcall/agent.yaml, encoding: b64, content: {}}}]",
            STANDARD.encode("version: 1\n")
        );
        assert_eq!(agent_config(&encoded), Ok(Some("version: 1\n".into())));
    }
}
