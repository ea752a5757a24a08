//! What a case's instance boots from: the user data that `control` has rendered for the fleet's pool,
//! with what the entry changes of it. Pure.

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::names::{AGENT_CONFIG_PATH, MIME_CLOUD_CONFIG, MIME_NODE_CONFIG};
use serde_json::{Value, json};
use thiserror::Error;

use super::case::{Case, Shape};
use crate::instances::intake::{self, IntakeError};
use crate::user_data::{Document, UserDataError, merge_patch, parse};

/// The pool's user data, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// The agent's configuration.
    pub agent: Value,
    /// The NodeConfig.
    pub node: Value,
}

/// Why a pool's user data is not what `control` writes.
#[derive(Debug, Error)]
pub enum BaseError {
    /// It cannot be taken apart.
    #[error("the pool's user data cannot be read")]
    Document(#[from] UserDataError),
    /// cloud-init would not take it.
    #[error("the pool's user data is not taken")]
    Intake(#[from] IntakeError),
    /// A part is not YAML.
    #[error("the pool's {0} is not YAML")]
    Yaml(&'static str, #[source] serde_yaml::Error),
    /// A part is not there.
    #[error("the pool's user data has no {0}")]
    Lacks(&'static str),
}

impl Base {
    /// Takes what EC2 hands out for the pool apart.
    ///
    /// # Errors
    /// When it is not what `control` writes.
    pub fn of(raw: &[u8]) -> Result<Self, BaseError> {
        let files = intake::take(raw)?.files;
        let wanted = AGENT_CONFIG_PATH.trim_start_matches('/');
        let file = files.iter().find(|file| file.path.as_os_str() == wanted);
        let agent = &file.ok_or(BaseError::Lacks("agent configuration"))?.content;
        let Document::Multipart(parts) = parse(raw)? else {
            return Err(BaseError::Lacks("MIME parts"));
        };
        let node = parts.iter().find(|part| part.media_type == MIME_NODE_CONFIG);
        let node = &node.ok_or(BaseError::Lacks("NodeConfig"))?.content;
        let yaml = |what| move |source| BaseError::Yaml(what, source);
        let mut agent: Value =
            serde_yaml::from_slice(agent).map_err(yaml("agent configuration"))?;
        // They are those of the pool's instance type; a case may have another.
        merge_patch(&mut agent, &json!({"gpus": null, "install": null}));
        Ok(Self { agent, node: serde_yaml::from_slice(node).map_err(yaml("NodeConfig"))? })
    }
}

/// What an instance gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its user data, before EC2's base64; none: it has none.
    pub user_data: Option<Vec<u8>>,
    /// The agent's configuration, where the image brings it.
    pub agent_on_disk: Option<String>,
    /// The NodeConfig, where the image brings it.
    pub node_on_disk: Option<String>,
}

/// Renders a case's user data; `fill` replaces `{{…}}` in what the entry says.
#[must_use]
pub fn render(base: &Base, case: &Case, fill: &dyn Fn(&str) -> String) -> Rendered {
    let patched = |value: &Value, patch: Option<&Value>| {
        let mut value = value.clone();
        if let Some(patch) = patch {
            merge_patch(&mut value, &filled(patch, fill));
        }
        value
    };
    let mut agent = base.agent.clone();
    merge_patch(
        &mut agent,
        &json!({"pool": case.case, "poolSize": 1, "deadlines": deadlines(case)}),
    );
    let agent = yaml(&patched(&agent, case.agent.as_ref()));
    let node = yaml(&patched(&base.node, case.node.as_ref()));
    let in_user_data = (!case.agent_on_disk).then_some(agent.as_str());
    let user_data = shaped(case.user_data, in_user_data, &node);
    let agent_on_disk = case.agent_on_disk.then_some(agent);
    Rendered { user_data, agent_on_disk, node_on_disk: case.node_on_disk.then_some(node) }
}

/// A hard reason's phase gives up early: a fault that the agent waits for ends as a verdict soon.
fn deadlines(case: &Case) -> Value {
    use contract::reason::Owner;
    match case.reason.map(|named| (named.0.is_hard(), named.0.entry().owner)) {
        Some((true, Owner::Phase(phase))) => json!({"phaseSeconds": {phase.label(): 8}}),
        _ => Value::Null,
    }
}

fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default()
}

fn filled(value: &Value, fill: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text)),
        Value::Array(list) => list.iter().map(|item| filled(item, fill)).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), filled(v, fill))).collect(),
        other => other.clone(),
    }
}

fn shaped(shape: Shape, agent: Option<&str>, node: &str) -> Option<Vec<u8>> {
    let whole = |nodes: &[&str]| mime(agent, nodes);
    let plain = || whole(&[node]);
    Some(match shape {
        Shape::Mime => plain().into_bytes(),
        Shape::Base64 => STANDARD.encode(plain()).into_bytes(),
        Shape::Gzip => gzip(plain().as_bytes()),
        Shape::Crlf => plain().replace('\n', "\r\n").into_bytes(),
        Shape::Bom => format!("\u{feff}{}", plain()).into_bytes(),
        Shape::Bare => node.as_bytes().to_vec(),
        Shape::Absent => return None,
        Shape::Blank => b" \n\n".to_vec(),
        Shape::Script => b"#!/bin/bash\n/etc/eks/bootstrap.sh my-cluster\n".to_vec(),
        Shape::Truncated => {
            // In the middle of the NodeConfig, as by a template that was cut at a size limit.
            let text = plain();
            let end = text.find("spec:").map_or(text.len() / 2, |at| at + 20);
            text.as_bytes()[..end.min(text.len())].to_vec()
        }
        Shape::GzipGarbage => {
            let mut bytes = gzip(plain().as_bytes());
            let middle = bytes.len() / 2;
            bytes[12..middle].fill(0x5a);
            bytes
        }
        Shape::Binary => vec![0xff, 0xfe, 0x00, 0x81, 0xc3, 0x28],
        Shape::AliasBomb => whole(&[&alias_bomb()]).into_bytes(),
        Shape::BrokenYaml => whole(&["apiVersion: [node.eks.aws\n  kind: {\n"]).into_bytes(),
        Shape::Contradicting => {
            let other = node.replace("name: ", "name: other-");
            whole(&[&other, node]).into_bytes()
        }
        Shape::WithoutNodeConfig => whole(&[]).into_bytes(),
    })
}

fn mime(agent: Option<&str>, nodes: &[&str]) -> String {
    let mut text =
        String::from("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n");
    let mut part = |kind: &str, body: &str| {
        let _ = write!(text, "--//\nContent-Type: {kind}; charset=\"us-ascii\"\n\n{body}\n");
    };
    let file = agent.map(|content| json!({"path": AGENT_CONFIG_PATH, "content": content}));
    let config = json!({"write_files": file.into_iter().collect::<Vec<_>>()});
    part(MIME_CLOUD_CONFIG, &format!("#cloud-config\n{}", yaml(&config)));
    for node in nodes {
        part(MIME_NODE_CONFIG, node);
    }
    text + "--//--\n"
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    // A vector takes everything.
    let _ = encoder.write_all(data);
    encoder.finish().unwrap_or_default()
}

/// Lists of aliases of lists of aliases.
fn alias_bomb() -> String {
    let mut text = String::from("apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n");
    text += "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for level in 1.. {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        let line = format!("  a{level}: &a{level} [{aliases}]\n");
        if text.len() + line.len() > 14 * 1024 {
            return text;
        }
        text += &line;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base {
        let node = json!({"apiVersion": "node.eks.aws/v1alpha1", "kind": "NodeConfig",
            "spec": {"cluster": {"name": "c", "apiServerEndpoint": "https://x"}}});
        Base { agent: json!({"version": 1, "cluster": "c", "pool": "p"}), node }
    }

    fn case(text: &str) -> Case {
        serde_yaml::from_str(&format!("case: a\nabout: Something is broken here.\n{text}")).unwrap()
    }

    fn rendered(text: &str) -> Rendered {
        render(&base(), &case(text), &|text| text.replace("{{x}}", "filled"))
    }

    #[test]
    fn what_is_rendered_is_read_back() {
        let whole = rendered("reason: GpuLost\nnode: {spec: {cluster: {cidr: '{{x}}'}}}\n");
        let read = Base::of(&whole.user_data.unwrap()).unwrap();
        assert_eq!(read.agent["pool"], "a");
        assert_eq!(read.agent["deadlines"]["phaseSeconds"]["drivers"], 8);
        assert_eq!(
            read.node["spec"]["cluster"],
            json!({"name": "c", "apiServerEndpoint": "https://x", "cidr": "filled"})
        );
        for shape in ["base64", "gzip", "crlf"] {
            let shaped = rendered(&format!("userData: {shape}\n")).user_data.unwrap();
            assert_eq!(Base::of(&shaped).unwrap().agent["pool"], "a", "{shape}");
        }
    }

    #[test]
    fn the_image_may_bring_the_agents_configuration() {
        let split = rendered("agentOnDisk: true\nagent: {gpus: {count: 3}}\n");
        assert!(matches!(Base::of(&split.user_data.unwrap()), Err(BaseError::Lacks(_))));
        assert!(split.agent_on_disk.unwrap().contains("count: 3"));
    }

    #[test]
    fn every_shape_fits_into_ec2s_limit() {
        for shape in [
            "truncated",
            "gzip-garbage",
            "binary",
            "alias-bomb",
            "broken-yaml",
            "contradicting",
            "script",
            "blank",
            "bare",
            "bom",
            "without-node-config",
        ] {
            let data = rendered(&format!("userData: {shape}\n")).user_data.unwrap();
            assert!(data.len() <= 16 * 1024, "{shape}: {}", data.len());
        }
        assert_eq!(rendered("userData: absent\n").user_data, None);
    }
}
