//! What nodeadm writes for containerd: the template, the user's TOML over it, the base spec. Pure.

use serde_json::{Map, Value, json};

use super::config::{ConfigError, NodeConfigSpec};
use super::merge::overlay;

/// Where containerd's configuration goes.
pub(super) const CONFIG: &str = "etc/containerd/config.toml";
/// Where the base of every container's specification goes.
pub(super) const BASE_SPEC: &str = "etc/containerd/base-runtime-spec.json";
/// What decides about the NVIDIA runtime: whether this exists, and nothing about the driver.
pub(super) const NVIDIA_RUNTIME: &str = "usr/bin/nvidia-container-runtime";

/// The configuration, version 3 as for containerd 2.x.
pub(super) fn configuration(spec: &NodeConfigSpec, nvidia: bool) -> Result<String, ConfigError> {
    let broken = |e: toml::de::Error| ConfigError::Toml(e.message().to_owned());
    let mut table: toml::Table = template(nvidia).parse().map_err(broken)?;
    overlay(&mut table, spec.containerd.config.parse().map_err(broken)?);
    toml::to_string(&table).map_err(|e| ConfigError::Toml(e.to_string()))
}

fn template(nvidia: bool) -> String {
    let (name, binary) = if nvidia {
        ("nvidia", "/usr/bin/nvidia-container-runtime")
    } else {
        ("runc", "/usr/sbin/runc")
    };
    format!(
        "version = 3\nroot = '/var/lib/containerd'\nstate = '/run/containerd'\n\
         [grpc]\naddress = '/run/containerd/containerd.sock'\n\
         [plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'localhost/kubernetes/pause:latest'\n\
         [plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = '/opt/cni/bin'\nconf_dir = '/etc/cni/net.d'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = '{name}'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}]\n\
         runtime_type = 'io.containerd.runc.v2'\nbase_runtime_spec = '/etc/containerd/base-runtime-spec.json'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}.options]\n\
         BinaryName = '{binary}'\nSystemdCgroup = true\n"
    )
}

/// The base specification with the user's over it.
pub(super) fn base_spec(spec: &NodeConfigSpec) -> Value {
    let base = json!({
        "ociVersion": "1.1.0",
        "process": {
            "cwd": "/",
            "noNewPrivileges": true,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 65536, "hard": 1_048_576}],
        },
    });
    let mut map = base.as_object().cloned().unwrap_or_default();
    deep(&mut map, &spec.containerd.base_runtime_spec);
    Value::Object(map)
}

fn deep(to: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (to.get_mut(key), value) {
            (Some(Value::Object(below)), Value::Object(later)) => deep(below, later),
            _ => {
                to.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{parse, tests::WHOLE};
    use super::*;

    #[test]
    fn the_runtime_follows_the_binary_and_the_user_wins() {
        let text = format!(
            "{WHOLE}  containerd: {{config: \"[grpc]\\naddress = '/x'\\n\", baseRuntimeSpec: {{process: {{cwd: /y}}}}}}\n"
        );
        let spec = parse(text.as_bytes()).unwrap();
        let table: toml::Table = configuration(&spec, true).unwrap().parse().unwrap();
        assert_eq!(table["grpc"]["address"].as_str(), Some("/x"));
        let runtime = &table["plugins"]["io.containerd.cri.v1.runtime"]["containerd"];
        assert_eq!(runtime["default_runtime_name"].as_str(), Some("nvidia"));
        assert!(configuration(&spec, false).unwrap().contains("/usr/sbin/runc"));
        let base = base_spec(&spec);
        assert_eq!(base["process"]["cwd"], "/y");
        assert_eq!(base["process"]["rlimits"][0]["soft"], 65536);
        let broken = format!("{WHOLE}  containerd: {{config: '= x'}}\n");
        assert!(configuration(&parse(broken.as_bytes()).unwrap(), true).is_err());
    }
}
