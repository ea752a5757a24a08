//! The pod network: what the container runtime says of it, and the VPC CNI's daemon that brings it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::knobs::Knobs;

const CONFIG_DIR: &str = "etc/cni/net.d";
const PLUGIN_DIR: &str = "opt/cni/bin";

/// The runtime's verdict while no configuration is there.
pub(super) const NOT_READY: &str = "container runtime network not ready: NetworkReady=false \
    reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";

/// Whether the runtime finds a network configuration.
pub(super) fn network_ready(root: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(root.join(CONFIG_DIR)) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        let named = path
            .extension()
            .is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|e| extension == *e));
        let text = if named { std::fs::read(path) } else { return false };
        text.is_ok_and(|text| serde_json::from_slice::<Value>(&text).is_ok())
    })
}

/// The VPC CNI's daemon, aws-node: it takes a while, then it writes the configuration.
#[derive(Debug, Default)]
pub(super) struct Daemon {
    waiting_since: Option<Instant>,
    up: bool,
}

impl Daemon {
    /// Goes on while the daemon's pod runs; answers whether the daemon is ready.
    pub(super) fn step(&mut self, root: &Path, knobs: &Knobs, now: Instant) -> bool {
        if self.up {
            return true;
        }
        if knobs.cni_held {
            self.waiting_since = None;
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        if now.duration_since(since) < knobs.cni_delay() {
            return false;
        }
        match install(root) {
            Ok(()) => self.up = true,
            Err(error) => super::klog::error(
                "aws-node",
                "Failed to copy CNI config",
                &[("err", &error.to_string())],
            ),
        }
        self.up
    }

    /// The daemon's pod is gone: a new one begins anew.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Copies plugins and configuration as aws-node's entry point does.
fn install(root: &Path) -> std::io::Result<()> {
    let plugins = root.join(PLUGIN_DIR);
    for plugin in ["aws-cni", "egress-cni"] {
        let path = plugins.join(plugin);
        if !path.exists() {
            write_whole(
                &path,
                b"#!/bin/sh\n# Stand-in for the VPC CNI's plugin.\nexit 1\n",
                0o755,
            )?;
        }
    }
    let text = format!("{:#}\n", conflist());
    write_whole(&root.join(CONFIG_DIR).join("10-aws.conflist"), text.as_bytes(), 0o644)
}

fn write_whole(path: &Path, text: &[u8], mode: u32) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn conflist() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "aws-cni",
        "disableCheck": true,
        "plugins": [
            {"name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "9001",
             "podSGEnforcingMode": "strict",
             "pluginLogFile": "/var/log/aws-routed-eni/plugin.log", "pluginLogLevel": "DEBUG"},
            {"name": "egress-cni", "type": "egress-cni", "mtu": "9001", "enabled": "false",
             "nodeIP": "", "ipam": {"type": "host-local"},
             "pluginLogFile": "/var/log/aws-routed-eni/egress-v6-plugin.log",
             "pluginLogLevel": "DEBUG"},
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_daemon_brings_the_network_after_its_delay_and_not_while_held() {
        let root = tempfile::tempdir().unwrap();
        let (mut daemon, start) = (Daemon::default(), Instant::now());
        let held = Knobs { cni_held: true, ..Knobs::default() };
        let free = Knobs::default();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!daemon.step(root.path(), &held, at(0)));
        assert!(!daemon.step(root.path(), &held, at(5000)), "held for ever");
        assert!(!daemon.step(root.path(), &free, at(5001)), "the delay begins when it is let go");
        assert!(!network_ready(root.path()));
        assert!(daemon.step(root.path(), &free, at(5801)));
        assert!(network_ready(root.path()));
        assert!(root.path().join("opt/cni/bin/aws-cni").exists());
        assert!(daemon.step(root.path(), &held, at(5900)), "nothing is taken away");
    }

    #[test]
    fn only_a_readable_configuration_counts() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(CONFIG_DIR);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("10-aws.conflist"), "{").unwrap();
        std::fs::write(dir.join("README"), "{}").unwrap();
        assert!(!network_ready(root.path()));
        std::fs::write(dir.join("20.conflist"), "{}").unwrap();
        assert!(network_ready(root.path()));
    }
}
