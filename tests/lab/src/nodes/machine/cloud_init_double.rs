//! A double of cloud-init for machine nodes: user data from IMDS, its files in the first stage, its
//! shell scripts in the last, as cloud-init runs them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use contract::ErrorChain;
use contract::names::MIME_SHELL_SCRIPT;

use crate::directory::{DirectoryError, write_atomically};
use crate::instances::intake::{self, IntakeError};
use crate::output;
use crate::user_data::{Document, UserDataError, parse};

/// How long IMDS is asked, as cloud-init's `max_wait`.
const IMDS_WITHIN: Duration = Duration::from_secs(120);
const IMDS: &str = "http://169.254.169.254/latest";
const SCRIPTS: &str = "/var/lib/cloud/instance/scripts";
const RESULT: &str = "/run/cloud-init/result.json";

#[derive(Debug, thiserror::Error)]
enum CloudInitError {
    #[error("usage: cloud-init-double init|final")]
    Usage,
    #[error("IMDS gave no user data within {0:?}: {1}")]
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
    let raw = runtime.map_err(CloudInitError::Start)?.block_on(user_data())?;
    match name {
        Some("init") => files(&raw),
        Some("final") => {
            let errors = scripts(&raw)?;
            let result =
                serde_json::json!({"v1": {"datasource": "DataSourceEc2Local", "errors": errors}});
            Ok(write_atomically(Path::new(RESULT), result.to_string().as_bytes(), 0o644)?)
        }
        _ => Err(CloudInitError::Usage),
    }
}

/// IMDSv2, asked until it answers.
async fn user_data() -> Result<Vec<u8>, CloudInitError> {
    let deadline = Instant::now() + IMDS_WITHIN;
    loop {
        match ask().await {
            Ok(raw) => return Ok(raw),
            Err(error) if Instant::now() >= deadline => {
                return Err(CloudInitError::Imds(IMDS_WITHIN, ErrorChain(&error).to_string()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn ask() -> Result<Vec<u8>, reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let token = client
        .put(format!("{IMDS}/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "300")
        .send()
        .await?
        .error_for_status()?
        .text()
        .await?;
    let asked = client.get(format!("{IMDS}/user-data")).header("x-aws-ec2-metadata-token", token);
    Ok(asked.send().await?.error_for_status()?.bytes().await?.to_vec())
}

fn files(raw: &[u8]) -> Result<(), CloudInitError> {
    for file in intake::take(raw)?.files {
        write_atomically(&Path::new("/").join(&file.path), &file.content, file.mode)?;
    }
    Ok(())
}

/// Runs the scripts one after the other; a failed one does not keep the next from running.
fn scripts(raw: &[u8]) -> Result<Vec<String>, CloudInitError> {
    let parts = match parse(raw)? {
        Document::Multipart(parts) => parts,
        Document::Plain(_) => Vec::new(),
    };
    let mut errors = Vec::new();
    let scripts = parts.iter().filter(|part| part.media_type == MIME_SHELL_SCRIPT);
    for (number, script) in scripts.enumerate() {
        let path = Path::new(SCRIPTS).join(format!("part-{:03}", number + 1));
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
