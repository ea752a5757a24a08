//! The CDI specification of the node's GPUs: does what it names exist?

use std::path::PathBuf;

use serde_json::Value;

use crate::host::{Root, files};

/// Where containerd looks for specifications.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/run/cdi"];

/// Kinds of device that NVIDIA's toolkit describes.
const VENDOR: &str = "nvidia.com/";

/// Something that a specification names and that is not there; `None` when all is, or there is
/// no specification.
#[must_use]
pub fn missing(root: &Root) -> Option<String> {
    DIRECTORIES.iter().find_map(|directory| {
        let names = files::names_in(&root.path(directory));
        names.iter().find_map(|name| {
            let path = PathBuf::from(directory).join(name);
            let text = files::read_text(&root.path(&path)).ok()?;
            let spec: Value = serde_yaml::from_str(&text).ok()?;
            spec["kind"].as_str().filter(|kind| kind.starts_with(VENDOR))?;
            let absent = named(&spec).into_iter().find(|named| !root.path(named).exists())?;
            Some(format!("`{}` names `{absent}`, which is not there", path.display()))
        })
    })
}

/// Every path of the host in a specification: mounts and device nodes, of all devices and of each.
fn named(spec: &Value) -> Vec<String> {
    let devices = spec["devices"].as_array().into_iter().flatten();
    let edits = devices.map(|device| &device["containerEdits"]).chain([&spec["containerEdits"]]);
    let list = |edits: &Value, key: &str| edits[key].as_array().cloned().unwrap_or_default();
    edits
        .flat_map(|edits| [list(edits, "mounts"), list(edits, "deviceNodes")].concat())
        .filter_map(|entry| {
            let path = entry["hostPath"].as_str().or_else(|| entry["path"].as_str());
            path.map(str::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SPEC: &str = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n\
        - name: '0'\n  containerEdits:\n    deviceNodes: [{path: /dev/nvidia0}]\n\
        containerEdits:\n  mounts:\n  - hostPath: /usr/lib64/libcuda.so.580.95.05\n    containerPath: /x\n";

    #[test]
    fn a_specification_of_another_driver_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(missing(&root), None);
        for directory in ["/etc/cdi", "/run/cdi", "/dev", "/usr/lib64"] {
            fs::create_dir_all(root.path(directory)).unwrap();
        }
        fs::write(
            root.path("/etc/cdi/other.yaml"),
            "kind: vendor.com/net\ndevices: [{containerEdits: {deviceNodes: [{path: /dev/x}]}}]",
        )
        .unwrap();
        fs::write(root.path("/etc/cdi/broken.json"), "{").unwrap();
        assert_eq!(missing(&root), None);
        fs::write(root.path("/run/cdi/nvidia.yaml"), SPEC).unwrap();
        fs::write(root.path("/dev/nvidia0"), "").unwrap();
        let stale = missing(&root).unwrap();
        assert!(
            stale.contains("libcuda.so.580.95.05") && stale.contains("/run/cdi/nvidia.yaml"),
            "{stale}"
        );
        fs::write(root.path("/usr/lib64/libcuda.so.580.95.05"), "").unwrap();
        assert_eq!(missing(&root), None);
    }
}
