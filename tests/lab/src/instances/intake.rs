//! Takes user data as the machine would at boot: `write_files` of its cloud-config, and where the
//! agent comes from. Scripts are not run: on a process node `install` says what the script does.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::agent_config::Install;
use contract::names::{AGENT_CONFIG_PATH, MIME_CLOUD_CONFIG};
use flate2::read::GzDecoder;
use serde::Deserialize;
use thiserror::Error;

use crate::user_data::{Document, UserDataError, parse};

/// Why nothing can be started from an instance's user data.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum IntakeError {
    /// The instance has none.
    #[error("the instance has no user data")]
    Absent,
    /// It cannot be taken apart.
    #[error("the user data cannot be read: {0}")]
    Broken(#[from] UserDataError),
    /// It is neither MIME nor a cloud-config.
    #[error("the user data is neither MIME nor a cloud-config")]
    NotMime,
    /// Its cloud-config is not YAML of the right shape.
    #[error("the cloud-config cannot be read: {0}")]
    CloudConfig(String),
    /// A file that cannot be unpacked or lies outside the node.
    #[error("write_files entry `{path}` cannot be written: {why}")]
    BadFile {
        /// Its path.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// A file that the user data puts on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFile {
    /// Path below the node's root, relative.
    pub path: PathBuf,
    /// Content.
    pub content: Vec<u8>,
    /// Mode.
    pub mode: u32,
}

/// Where the agent comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSource {
    /// Fetched from here.
    Fetched(Install),
    /// Expected in the image.
    Baked,
    /// The user data does not speak of an agent.
    None,
}

/// What the user data brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intake {
    /// Files, in order.
    pub files: Vec<WriteFile>,
    /// The agent.
    pub agent: AgentSource,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CloudConfig {
    write_files: Vec<FileEntry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FileEntry {
    path: String,
    content: String,
    encoding: String,
    permissions: Option<serde_yaml::Value>,
}

/// The one field of the agent's configuration that booting needs. The rest is the agent's to
/// judge, so that a mistake in it is named by the agent.
#[derive(Deserialize, Default)]
#[serde(default)]
struct InstallOnly {
    install: Option<Install>,
}

/// Whether the agent is told that the node's GPUs are offered by DRA. In the lab the DRA driver's
/// double then offers them so.
#[must_use]
pub fn offers_by_dra(raw: &[u8]) -> bool {
    let Ok(intake) = take(raw) else { return false };
    let wanted = Path::new(AGENT_CONFIG_PATH.trim_start_matches('/'));
    let config = intake.files.iter().find(|file| file.path == wanted);
    let config =
        config.and_then(|file| serde_yaml::from_slice::<serde_yaml::Value>(&file.content).ok());
    config.is_some_and(|config| config["gpuOffer"] == "dra")
}

/// Reads user data as the instance gets it from IMDS.
///
/// # Errors
/// When nothing can be started from it.
pub fn take(raw: &[u8]) -> Result<Intake, IntakeError> {
    if raw.iter().all(u8::is_ascii_whitespace) {
        return Err(IntakeError::Absent);
    }
    let configs: Vec<Vec<u8>> = match parse(raw)? {
        Document::Multipart(parts) => parts
            .into_iter()
            .filter(|part| part.media_type == MIME_CLOUD_CONFIG)
            .map(|part| part.content)
            .collect(),
        Document::Plain(content) if content.starts_with(b"#cloud-config") => vec![content],
        Document::Plain(_) => return Err(IntakeError::NotMime),
    };
    let mut files = Vec::new();
    for config in configs {
        let config: Option<CloudConfig> =
            serde_yaml::from_slice(&config).map_err(|e| IntakeError::CloudConfig(e.to_string()))?;
        for entry in config.unwrap_or_default().write_files {
            files.push(entry.unpack()?);
        }
    }
    let agent = agent_source(&files)?;
    Ok(Intake { files, agent })
}

fn agent_source(files: &[WriteFile]) -> Result<AgentSource, IntakeError> {
    let wanted = Path::new(AGENT_CONFIG_PATH.trim_start_matches('/'));
    let Some(file) = files.iter().rev().find(|file| file.path == wanted) else {
        return Ok(AgentSource::None);
    };
    let config: InstallOnly = serde_yaml::from_slice(&file.content)
        .map_err(|e| IntakeError::BadFile { path: AGENT_CONFIG_PATH.into(), why: e.to_string() })?;
    Ok(config.install.map_or(AgentSource::Baked, AgentSource::Fetched))
}

impl FileEntry {
    fn unpack(self) -> Result<WriteFile, IntakeError> {
        let bad = |why: &str| IntakeError::BadFile { path: self.path.clone(), why: why.into() };
        let path = Path::new(&self.path);
        let relative = path.strip_prefix("/").map_err(|_| bad("the path is not absolute"))?;
        if relative.components().any(|c| !matches!(c, Component::Normal(_))) {
            return Err(bad("the path leaves the node"));
        }
        let content = decode(&self.encoding, &self.content).ok_or_else(|| bad("bad encoding"))?;
        let mode = self.permissions.as_ref().map_or(Some(0o644), mode_of);
        Ok(WriteFile {
            path: relative.to_owned(),
            content,
            mode: mode.ok_or_else(|| bad("bad permissions"))?,
        })
    }
}

/// cloud-init takes `'0600'` as octal text; a bare number is decimal YAML and a classic mistake
/// that cloud-init reads as octal digits too.
fn mode_of(value: &serde_yaml::Value) -> Option<u32> {
    let text = match value {
        serde_yaml::Value::String(text) => text.trim_start_matches("0o").to_owned(),
        serde_yaml::Value::Number(number) => number.to_string(),
        _ => return None,
    };
    u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777)
}

fn decode(encoding: &str, content: &str) -> Option<Vec<u8>> {
    let base64 = || STANDARD.decode(content.split_ascii_whitespace().collect::<String>()).ok();
    match encoding {
        "" | "text/plain" => Some(content.as_bytes().to_vec()),
        "b64" | "base64" => base64(),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => {
            let mut unpacked = Vec::new();
            let mut reader = GzDecoder::new(std::io::Cursor::new(base64()?)).take(4 << 20);
            reader.read_to_end(&mut unpacked).ok().map(|_| unpacked)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn multipart(cloud_config: &str) -> String {
        format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"B\"\n\n\
             --B\nContent-Type: text/cloud-config\n\n{cloud_config}\n\
             --B\nContent-Type: text/x-shellscript\n\n#!/bin/sh\ntouch /never\n--B--\n"
        )
    }

    const CONFIG: &str = "#cloud-config\nwrite_files:\n- path: /etc/rollcall/agent.yaml\n  permissions: '0600'\n  content: |\n    \
        version: 1\n    cluster: prod\n    pool: h100\n    install:\n      url: s3://bucket/key\n      sha256: abcd\n";

    #[test]
    fn files_and_the_agents_place_are_taken() {
        let intake = take(multipart(CONFIG).as_bytes()).unwrap();
        assert_eq!(intake.files.len(), 1);
        assert_eq!(intake.files[0].path, Path::new("etc/rollcall/agent.yaml"));
        assert_eq!(intake.files[0].mode, 0o600);
        let install = Install { url: "s3://bucket/key".into(), sha256: "abcd".into() };
        assert_eq!(intake.agent, AgentSource::Fetched(install));
        assert_eq!(take(CONFIG.as_bytes()).unwrap(), intake);
    }

    #[test]
    fn a_mistake_elsewhere_in_the_configuration_is_the_agents_to_name() {
        let config = CONFIG.replace("pool: h100", "pol: h100");
        assert!(matches!(take(config.as_bytes()).unwrap().agent, AgentSource::Fetched(_)));
        let baked = CONFIG.split("    install").next().unwrap();
        assert_eq!(take(baked.as_bytes()).unwrap().agent, AgentSource::Baked);
        assert_eq!(take(multipart("#cloud-config").as_bytes()).unwrap().agent, AgentSource::None);
    }

    #[test]
    fn encodings() {
        for (encoding, content) in [("b64", "aGk="), ("text/plain", "hi"), ("''", "hi")] {
            let config = format!(
                "#cloud-config\nwrite_files:\n- {{path: /a, encoding: {encoding}, content: {content}, permissions: 755}}\n"
            );
            let intake = take(config.as_bytes()).unwrap();
            assert_eq!(
                (intake.files[0].content.as_slice(), intake.files[0].mode),
                (&b"hi"[..], 0o755)
            );
        }
    }

    #[test]
    fn nothing_is_started_from_bad_user_data() {
        let bad_file = |line: &str| format!("#cloud-config\nwrite_files:\n- {line}\n");
        let whole = multipart(CONFIG);
        type Expected = fn(&IntakeError) -> bool;
        let cases: Vec<(String, Expected)> = vec![
            (String::new(), |e| *e == IntakeError::Absent),
            ("\n \n".into(), |e| *e == IntakeError::Absent),
            ("#!/bin/sh\nid\n".into(), |e| *e == IntakeError::NotMime),
            ("apiVersion: node.eks.aws/v1alpha1\n".into(), |e| *e == IntakeError::NotMime),
            (whole[..whole.len() / 2].into(), |e| {
                matches!(e, IntakeError::Broken(UserDataError::Truncated(_)))
            }),
            ("#cloud-config\nwrite_files: 3\n".into(), |e| {
                matches!(e, IntakeError::CloudConfig(_))
            }),
            (bad_file("{path: ../x, content: a}"), |e| matches!(e, IntakeError::BadFile { .. })),
            (bad_file("{path: /a/../../x, content: a}"), |e| {
                matches!(e, IntakeError::BadFile { .. })
            }),
            (bad_file("{path: /a, encoding: b64, content: '*'}"), |e| {
                matches!(e, IntakeError::BadFile { .. })
            }),
            (bad_file("{path: /a, permissions: rwx}"), |e| {
                matches!(e, IntakeError::BadFile { .. })
            }),
            (bad_file("{path: /etc/rollcall/agent.yaml, content: 'install: [1]'}"), |e| {
                matches!(e, IntakeError::BadFile { .. })
            }),
        ];
        for (data, expected) in cases {
            let error = take(data.as_bytes()).unwrap_err();
            assert!(expected(&error), "{data:?}: {error}");
        }
    }
}
