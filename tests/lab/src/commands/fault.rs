//! `lab fault`: breaks something in a running lab, lifts it, or lists what is broken.

use anyhow::{Context as _, bail};
use contract::ExitCode;
use serde_json::Value;

use crate::cli::FaultArgs;
use crate::faults::{Fault, FaultError, Target};
use crate::output;
use crate::supervisor::{FaultRequest, LIFT};

pub(super) async fn run(arguments: &FaultArgs) -> anyhow::Result<ExitCode> {
    let request = match request(arguments) {
        Ok(request) => request,
        Err(message) => {
            output::progress(&format!("error: {message}"));
            return Ok(ExitCode::Usage);
        }
    };
    let (_, record) = super::live(&arguments.place.dir)?;
    let path = if request.is_some() { "/faults" } else { "/status" };
    let (status, body) = crate::supervisor::ask(&record, path, request.as_ref())
        .await
        .context("the lab's supervisor does not answer: end it with lab down and start another")?;
    if status != 200 {
        bail!("{}", body["error"].as_str().unwrap_or("the supervisor refuses"));
    }
    output::data(&match request {
        Some(_) => format!("{}\n", body["message"].as_str().unwrap_or_default()),
        None => list(&body),
    });
    Ok(ExitCode::Success)
}

/// What is asked for; none: the list. Wrong usage is found here, before a lab is asked.
fn request(arguments: &FaultArgs) -> Result<Option<FaultRequest>, FaultError> {
    match (arguments.target.as_str(), arguments.fault.as_deref()) {
        ("list", None) => Ok(None),
        (target, fault) => {
            let place: Target = target.parse()?;
            let fault = fault.unwrap_or_default();
            if fault != "clear" {
                let one = fault.strip_prefix(LIFT);
                let parsed: Fault = one.unwrap_or(fault).parse()?;
                if place == Target::All && !parsed.fits_all() {
                    return Err(FaultError::NeedsNode(fault.to_owned()));
                }
            }
            Ok(Some(FaultRequest { target: target.to_owned(), fault: fault.to_owned() }))
        }
    }
}

fn list(status: &Value) -> String {
    let faults: Vec<&Value> = status["faults"].as_array().into_iter().flatten().collect();
    if faults.is_empty() {
        return "no faults\n".to_owned();
    }
    let field = |fault: &Value, name: &str| fault[name].as_str().unwrap_or_default().to_owned();
    let line = |fault: &&Value| {
        let (target, name) = (field(fault, "target"), field(fault, "fault"));
        format!("{target:<16} {name:<26} {}\n", field(fault, "state"))
    };
    faults.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(target: &str, fault: Option<&str>) -> Result<bool, FaultError> {
        let arguments = FaultArgs {
            place: crate::cli::Place { dir: "x".into() },
            target: target.into(),
            fault: fault.map(str::to_owned),
        };
        request(&arguments).map(|request| request.is_some())
    }

    #[test]
    fn usage() {
        assert_eq!(ask("list", None), Ok(false));
        assert_eq!(ask("gpu/1", Some("clear")), Ok(true));
        assert_eq!(ask("gpu/1", Some("gpu-missing=2")), Ok(true));
        assert_eq!(ask("all", Some("api-unreachable")), Ok(true));
        assert_eq!(ask("all", Some("clear")), Ok(true));
        assert_eq!(ask("all", Some("cni-held")), Err(FaultError::NeedsNode("cni-held".into())));
        assert_eq!(ask("gpu/1", None), Err(FaultError::Unknown(String::new())));
        assert_eq!(ask("gpu", Some("cni-held")), Err(FaultError::BadTarget("gpu".into())));
    }
}
