//! A double of cloud-init for machine nodes: user data from IMDS, its files in the first stage, its
//! shell scripts in the last, as cloud-init runs them: both once per instance and not once per boot. The key of the
//! instance's key pair goes to the image's user in the first.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use contract::ErrorChain;
use contract::names::MIME_SHELL_SCRIPT;

use super::users::USER;
use crate::directory::{DirectoryError, write_atomically};
use crate::instances::intake::{self, IntakeError};
use crate::output;
use crate::user_data::{Document, UserDataError, parse};

/// How long IMDS is asked, as cloud-init's `max_wait`.
const IMDS_WITHIN: Duration = Duration::from_secs(120);
const IMDS: &str = "http://169.254.169.254/latest";
const TOKEN: &str = "x-aws-ec2-metadata-token";
/// Each instance's own folder below it, as the disk may have come from another one.
const INSTANCES: &str = "/var/lib/cloud/instances";
const RESULT: &str = "/run/cloud-init/result.json";

#[derive(Debug, thiserror::Error)]
enum CloudInitError {
    #[error("usage: cloud-init-double init|final")]
    Usage,
    #[error("IMDS did not answer within {0:?}: {1}")]
    Imds(Duration, String),
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error(transparent)]
    UserData(#[from] UserDataError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("could not run `{0}`")]
    Run(String, #[source] std::io::Error),
    #[error("could not start")]
    Start(#[source] std::io::Error),
}

/// Runs one stage.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    match stage(arguments.first().map(String::as_str)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::progress(&format!("cloud-init-double: {}", ErrorChain(&error)));
            ExitCode::FAILURE
        }
    }
}

fn stage(name: Option<&str>) -> Result<(), CloudInitError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Metadata { id, raw, key } = runtime.map_err(CloudInitError::Start)?.block_on(metadata())?;
    let instance = Path::new(INSTANCES).join(id);
    match name {
        Some("init") => {
            if let Some(key) = key
                && once(&instance, "ssh")?
            {
                authorize(&key)?;
            }
            // An instance without user data is configured by its image alone.
            let has_files = !raw.trim_ascii().is_empty() && once(&instance, "write_files")?;
            if has_files { files(&raw) } else { Ok(()) }
        }
        Some("final") => {
            let first = once(&instance, "scripts_user")?;
            let errors = if first { scripts(&raw, &instance.join("scripts"))? } else { Vec::new() };
            let result =
                serde_json::json!({"v1": {"datasource": "DataSourceEc2Local", "errors": errors}});
            Ok(write_atomically(Path::new(RESULT), result.to_string().as_bytes(), 0o644)?)
        }
        _ => Err(CloudInitError::Usage),
    }
}

/// True the first time for this instance. The mark is there before the work begins: what was
/// interrupted is not begun again.
fn once(instance: &Path, module: &str) -> Result<bool, CloudInitError> {
    let mark = instance.join("sem").join(format!("config_{module}"));
    if mark.exists() {
        return Ok(false);
    }
    write_atomically(&mark, format!("{}\n", std::process::id()).as_bytes(), 0o644)?;
    Ok(true)
}

/// Lets the owner of the key log in as the image's user.
fn authorize(key: &str) -> Result<(), CloudInitError> {
    let failed = |source| CloudInitError::Run(format!("authorize the key for {USER}"), source);
    let folder = Path::new("/home").join(USER).join(".ssh");
    let owner = std::fs::metadata(Path::new("/home").join(USER)).map_err(failed)?;
    let file = folder.join("authorized_keys");
    write_atomically(&file, format!("{}\n", key.trim()).as_bytes(), 0o600)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    for path in [&folder, &file] {
        chown(path, Some(owner.uid()), Some(owner.gid())).map_err(failed)?;
    }
    Ok(())
}

/// What IMDS says of the instance.
struct Metadata {
    id: String,
    /// User data; empty where there is none.
    raw: Vec<u8>,
    /// The public key of its key pair.
    key: Option<String>,
}

/// IMDSv2, asked until it answers.
async fn metadata() -> Result<Metadata, CloudInitError> {
    let deadline = Instant::now() + IMDS_WITHIN;
    loop {
        match ask().await {
            Ok(answers) => return Ok(answers),
            Err(error) if Instant::now() >= deadline => {
                return Err(CloudInitError::Imds(IMDS_WITHIN, ErrorChain(&error).to_string()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn ask() -> Result<Metadata, reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let token = client
        .put(format!("{IMDS}/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "300")
        .send()
        .await?
        .error_for_status()?
        .text()
        .await?;
    // What the instance does not have is not found.
    let get = async |path: &str| -> Result<Option<Vec<u8>>, reqwest::Error> {
        let answer = client.get(format!("{IMDS}/{path}")).header(TOKEN, &token).send().await?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status()?.bytes().await?.to_vec()))
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    let id = get("meta-data/instance-id").await?.map(text).unwrap_or_default();
    let raw = get("user-data").await?.unwrap_or_default();
    let key = get("meta-data/public-keys/0/openssh-key").await?.map(text);
    Ok(Metadata { id, raw, key })
}

fn files(raw: &[u8]) -> Result<(), CloudInitError> {
    for file in intake::take(raw)?.files {
        write_atomically(&Path::new("/").join(&file.path), &file.content, file.mode)?;
    }
    Ok(())
}

/// Runs the scripts one after the other; a failed one does not keep the next from running.
fn scripts(raw: &[u8], dir: &Path) -> Result<Vec<String>, CloudInitError> {
    if raw.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let parts = match parse(raw)? {
        Document::Multipart(parts) => parts,
        Document::Plain(_) => Vec::new(),
    };
    let mut errors = Vec::new();
    let scripts = parts.iter().filter(|part| part.media_type == MIME_SHELL_SCRIPT);
    for (number, script) in scripts.enumerate() {
        let path = dir.join(format!("part-{:03}", number + 1));
        write_atomically(&path, &script.content, 0o700)?;
        let failed = |source| CloudInitError::Run(path.display().to_string(), source);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let status = Command::new(&path).stdin(Stdio::null()).status().map_err(failed)?;
        if !status.success() {
            errors.push(format!("{}: {status}", path.display()));
            output::progress(&format!("cloud-init-double: {} ended with {status}", path.display()));
        }
    }
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_runs_once_for_each_instance() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("i-1"), dir.path().join("i-2"));
        assert!(once(&first, "scripts_user").unwrap());
        assert!(!once(&first, "scripts_user").unwrap());
        assert!(once(&first, "write_files").unwrap());
        assert!(once(&second, "scripts_user").unwrap());
    }

    #[test]
    fn scripts_run_in_order_and_a_failed_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let part =
            |body: &str| format!("--B\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n{body}\n",);
        let raw = format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"B\"\n\n{}{}--B--\n",
            part("exit 3"),
            part(&format!("echo two >{}", log.display())),
        );
        let errors = scripts(raw.as_bytes(), &dir.path().join("scripts")).unwrap();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("part-001"), "{errors:?}");
        assert_eq!(std::fs::read_to_string(log).unwrap(), "two\n");
    }
}
