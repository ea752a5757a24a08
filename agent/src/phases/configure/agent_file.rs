//! The agent's configuration in the user data: what cloud-init would write to `agent.yaml`.
//!
//! Read as forgivingly as can be: the better it is found in broken user data, the more channels can
//! say what is broken.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::AgentConfig;
use contract::names::{AGENT_CONFIG_PATH, MIME_CLOUD_CONFIG};
use serde::Deserialize;

use super::{mime, source};

/// Reads the file, strictly.
///
/// # Errors
/// With the line of what does not parse, or with every field that says what cannot be.
pub fn parse(text: &str) -> Result<AgentConfig, String> {
    let config: AgentConfig = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let problems = config.problems();
    if problems.is_empty() { Ok(config) } else { Err(problems.join("; ")) }
}

/// The file's text, when the user data has one; the last entry wins, as for cloud-init.
///
/// # Errors
/// When the part that has it cannot be read.
pub fn in_user_data(bytes: &[u8]) -> Result<Option<String>, String> {
    let Ok(plain) = source::unwrap(bytes) else { return Ok(None) };
    let text = String::from_utf8_lossy(&plain).replace("\r\n", "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_start();
    let Some((boundary, body)) = mime::multipart(text.as_bytes()) else { return Ok(None) };
    let body = String::from_utf8_lossy(body);
    // A document that is cut off ends where it ends.
    let parts = mime::parts(body.as_bytes(), &boundary)
        .or_else(|_| mime::parts(format!("{body}\n--{boundary}--\n").as_bytes(), &boundary))
        .unwrap_or_default();
    let mut found = Ok(None);
    let is_cloud_config = |part: &mime::Part| part.media_type.as_deref() == Some(MIME_CLOUD_CONFIG);
    for part in parts.iter().filter(|part| is_cloud_config(part)) {
        let Ok(content) = source::unwrap(&part.content) else { continue };
        match written(&String::from_utf8_lossy(&content)) {
            Ok(None) => {}
            other => found = other,
        }
    }
    found
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

fn written(text: &str) -> Result<Option<String>, String> {
    let config: CloudConfig = match serde_yaml::from_str(text) {
        Ok(config) => config,
        // Somebody else's cloud-config is cloud-init's affair.
        Err(_) if !text.contains(AGENT_CONFIG_PATH) => return Ok(None),
        Err(error) => return Err(format!("cloud-config: {error}")),
    };
    let Some(file) = config.write_files.into_iter().rfind(|file| file.path == AGENT_CONFIG_PATH)
    else {
        return Ok(None);
    };
    let bytes = match file.encoding.as_str() {
        "" | "text/plain" => return Ok(Some(file.content)),
        "gz" | "gzip" => file.content.into_bytes(),
        _ => STANDARD
            .decode(file.content.split_ascii_whitespace().collect::<String>())
            .map_err(|_| format!("cloud-config: `{AGENT_CONFIG_PATH}` is not base64"))?,
    };
    let plain = source::unwrap(&bytes).map_err(|problem| format!("cloud-config: {problem}"))?;
    Ok(Some(String::from_utf8_lossy(&plain).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version: 1\ncluster: prod\n";

    fn cloud_config(file: &str) -> String {
        format!("#cloud-config\nwrite_files:\n- path: /etc/rollcall/agent.yaml\n{file}")
    }

    fn plain() -> String {
        cloud_config("  content: |\n    version: 1\n    cluster: prod\n")
    }

    fn mime(cloud_config: &str) -> String {
        format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n\
             --B\nContent-Type: text/cloud-config\n\n{cloud_config}\n\
             --B\nContent-Type: application/node.eks.aws\n\nx: [\n--B--\n"
        )
    }

    fn find(text: &str) -> Result<Option<String>, String> {
        in_user_data(text.as_bytes())
    }

    #[test]
    fn is_found_however_the_user_data_is_wrapped_or_broken() {
        let whole = mime(&plain());
        let expected = Ok(Some(TEXT.to_owned()));
        for (text, how) in [
            (whole.clone(), "as it is"),
            (STANDARD.encode(&whole), "base64"),
            (whole.replace('\n', "\r\n"), "CRLF"),
            (format!("\u{feff}{whole}"), "a mark"),
            (whole.replace("--B--\n", ""), "cut off"),
            (format!("\n{whole}"), "a blank line first"),
        ] {
            assert_eq!(find(&text), expected, "{how}");
        }
        let encoded = format!("  encoding: b64\n  content: {}\n", STANDARD.encode(TEXT));
        assert_eq!(find(&mime(&cloud_config(&encoded))), expected);
    }

    #[test]
    fn what_is_wrong_in_it_is_named_with_its_place() {
        assert!(parse("version: 1\ncluster: prod\npool: h100\n").is_ok());
        for (text, says) in [
            ("version: 1\ncluster: prod\npool: h100\nonAgentFault: maybe\n", "line 4"),
            ("version: 1\ncluster: prod\npool: h100\nenforce: hard\n", "enforce"),
            (
                "version: 1\ncluster: prod\npool: h100\ndeadlines:\n  phaseSecond: {}\n",
                "phaseSeconds",
            ),
            (
                "version: 1\ncluster: prod\npool: h100\nenforceReasons: {GpuLost: maybe}\n",
                "enforceReasons",
            ),
            (
                "version: 1\ncluster: prod\npool: h100\ndeadlines: {phaseSeconds: {driver: 1}}\n",
                "driver",
            ),
            ("version: 7\ncluster: prod\npool: h100\n", "`version` is 7"),
            ("", "version"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }

    #[test]
    fn other_files_are_not_ours_and_broken_ones_are_named() {
        assert_eq!(find(&mime(&plain().replace("rollcall", "other"))), Ok(None));
        assert_eq!(find(&mime("write_files: 7")), Ok(None));
        assert_eq!(find("#!/bin/sh\n"), Ok(None));
        let broken = find(&mime(&format!("{}\n  x: [", plain())));
        assert!(broken.unwrap_err().starts_with("cloud-config: "));
        let not_base64 = find(&mime(&cloud_config("  encoding: b64\n  content: '*'\n")));
        assert!(not_base64.unwrap_err().contains("not base64"));
    }
}
