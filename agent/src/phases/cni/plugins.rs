//! Asks the plugins of a network on the host, as containerd will: VERSION, and STATUS where the
//! network's version has it. Both only answer and change nothing, by the CNI specification.

use std::time::Duration;

use contract::ErrorChain;
use serde_json::{Value, json};

use super::PLUGIN_DIR;
use super::network::Network;
use crate::host::exec::{self, Feed};
use crate::host::{Deadline, Root};

/// How long one plugin may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What is wrong with the network's plugins; empty when all answer.
pub(super) async fn ask(root: &Root, network: &Network, deadline: Deadline) -> Vec<String> {
    let mut troubles = Vec::new();
    for plugin in &network.plugins {
        let kind = plugin["type"].as_str().unwrap_or_default();
        if let Err(trouble) = version(root, kind, network, deadline).await {
            troubles.push(trouble);
        } else if network.has_status()
            && let Err(trouble) = status(root, kind, plugin, network, deadline).await
        {
            troubles.push(trouble);
        }
    }
    troubles.dedup();
    troubles
}

async fn version(
    root: &Root,
    kind: &str,
    network: &Network,
    deadline: Deadline,
) -> Result<(), String> {
    let question = json!({"cniVersion": network.version}).to_string();
    let answer = call(root, kind, "VERSION", &question, deadline).await?;
    let known = answer["supportedVersions"].as_array();
    let known: Vec<&str> = known.into_iter().flatten().filter_map(Value::as_str).collect();
    let wanted = network.version.as_str();
    if known.is_empty() {
        Err(format!("the plugin `{kind}` answers VERSION without supportedVersions"))
    } else if wanted.is_empty() || known.contains(&wanted) {
        Ok(())
    } else {
        let file = &network.file;
        Err(format!("the plugin `{kind}` speaks {}, `{file}` wants {wanted}", known.join(", ")))
    }
}

async fn status(
    root: &Root,
    kind: &str,
    plugin: &Value,
    network: &Network,
    deadline: Deadline,
) -> Result<(), String> {
    let mut question = plugin.clone();
    question["cniVersion"] = network.version.clone().into();
    question["name"] = network.name.clone().into();
    call(root, kind, "STATUS", &question.to_string(), deadline).await.map(|_| ())
}

async fn call(
    root: &Root,
    kind: &str,
    command: &str,
    question: &str,
    deadline: Deadline,
) -> Result<Value, String> {
    let directory = root.path(PLUGIN_DIR);
    let program = directory.join(kind);
    let path = directory.to_string_lossy();
    let feed =
        Feed { environment: &[("CNI_COMMAND", command), ("CNI_PATH", &path)], input: question };
    let ended = exec::run_fed::<&str>(&program, &[], &feed, deadline.at_most(ANSWER)).await;
    let output = ended
        .map_err(|error| format!("the plugin `{kind}` at {command}: {}", ErrorChain(&error)))?;
    let answer: Value = serde_json::from_str(output.stdout.trim()).unwrap_or_default();
    if output.success() {
        return Ok(answer);
    }
    // An error is JSON too: a code and a message.
    let said = match answer["msg"].as_str() {
        Some(message) => format!("{message} (code {})", answer["code"]),
        None => output.stderr.lines().next().unwrap_or("nothing").to_owned(),
    };
    Err(format!("the plugin `{kind}` refuses {command}: {said}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ANSWERS: &str = r#"echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'"#;

    async fn troubles(version: &str, script: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(root.path(PLUGIN_DIR)).unwrap();
        let path = root.path(PLUGIN_DIR).join("cilium-cni");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let network = Network {
            file: "05-cilium.conflist".into(),
            version: version.into(),
            name: "cilium".into(),
            plugins: vec![json!({"type": "cilium-cni", "mtu": 9001})],
        };
        ask(&root, &network, Deadline::within(Duration::from_millis(900))).await
    }

    #[tokio::test]
    async fn a_plugin_must_answer_in_the_networks_version() {
        assert_eq!(troubles("1.0.0", ANSWERS).await, Vec::<String>::new());
        for (version, script, says) in [
            ("0.4.0", ANSWERS, "speaks 1.0.0, 1.1.0"),
            ("1.0.0", "echo '{}'", "without supportedVersions"),
            ("1.0.0", "echo oops >&2; exit 1", "refuses VERSION: oops"),
            ("1.0.0", r#"echo '{"code":999,"msg":"broken"}'; exit 1"#, "broken (code 999)"),
            ("1.0.0", "exec sleep 60", "did not end within"),
        ] {
            let troubles = troubles(version, script).await;
            assert!(troubles.len() == 1 && troubles[0].contains(says), "{troubles:?}");
        }
    }

    #[tokio::test]
    async fn status_is_asked_from_1_1_on_with_the_plugins_own_configuration() {
        let script = format!(
            "if [ $CNI_COMMAND = VERSION ]; then {ANSWERS}; exit; fi\n\
             grep -q '\"mtu\":9001' || exit 1\n\
             echo '{{\"code\":50,\"msg\":\"the agent is not up\"}}'; exit 1"
        );
        assert_eq!(troubles("1.0.0", &script).await, Vec::<String>::new());
        let troubles = troubles("1.1.0", &script).await;
        assert!(
            troubles[0].contains("refuses STATUS: the agent is not up (code 50)"),
            "{troubles:?}"
        );
    }
}
