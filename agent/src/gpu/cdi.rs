//! The CDI specification of the node's GPUs: does what it names exist, and are all GPUs in it?

use std::path::PathBuf;

use serde_json::Value;

use crate::host::{Root, files};

/// Where containerd looks for specifications.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/run/cdi"];

/// Kinds of device that NVIDIA's toolkit describes.
const VENDOR: &str = "nvidia.com/";
/// The kind that whole GPUs are of.
const GPUS: &str = "nvidia.com/gpu";
/// A GPU's device node, before its number.
const DEVICE_NODE: &str = "/dev/nvidia";

/// What is wrong with the specifications: something that one names and that is not there, or a GPU, by
/// the number of its device node, that none of them has. `None` when all is well, or there is none.
#[must_use]
pub fn stale(root: &Root, gpus: &[u32]) -> Option<String> {
    let specs = specifications(root);
    missing(root, &specs).or_else(|| lacking(&specs, gpus))
}

/// NVIDIA's specifications, and where each is.
fn specifications(root: &Root) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    for directory in DIRECTORIES {
        for name in files::names_in(&root.path(directory)) {
            let path = PathBuf::from(directory).join(name);
            let Ok(text) = files::read_text(&root.path(&path)) else { continue };
            let Ok(spec) = serde_yaml::from_str::<Value>(&text) else { continue };
            if spec["kind"].as_str().is_some_and(|kind| kind.starts_with(VENDOR)) {
                found.push((path, spec));
            }
        }
    }
    found
}

fn missing(root: &Root, specs: &[(PathBuf, Value)]) -> Option<String> {
    specs.iter().find_map(|(path, spec)| {
        let absent = named(spec).into_iter().find(|named| !root.path(named).exists())?;
        Some(format!("`{}` names `{absent}`, which is not there", path.display()))
    })
}

/// GPUs that containers cannot be given. Specifications that name no GPU by a device node of its own
/// say nothing of them.
fn lacking(specs: &[(PathBuf, Value)], gpus: &[u32]) -> Option<String> {
    let of_gpus: Vec<_> = specs.iter().filter(|(_, spec)| spec["kind"] == GPUS).collect();
    let minor = |path: String| path.strip_prefix(DEVICE_NODE)?.parse::<u32>().ok();
    let known: Vec<u32> =
        of_gpus.iter().flat_map(|(_, spec)| named(spec)).filter_map(minor).collect();
    let absent = gpus.iter().find(|gpu| !known.is_empty() && !known.contains(gpu))?;
    let (path, _) = of_gpus.first()?;
    let (path, of) = (path.display(), gpus.len());
    Some(format!("`{path}` lacks `{DEVICE_NODE}{absent}`, one of {of} GPUs"))
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
        let missing = |root: &Root| stale(root, &[0]);
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

        let lacks = super::stale(&root, &[0, 1]).unwrap();
        assert_eq!(lacks, "`/run/cdi/nvidia.yaml` lacks `/dev/nvidia1`, one of 2 GPUs");
        let of_all = "kind: nvidia.com/gpu\ndevices: [{name: all, containerEdits: {}}]";
        fs::write(root.path("/run/cdi/nvidia.yaml"), of_all).unwrap();
        assert_eq!(super::stale(&root, &[0, 1]), None, "it does not name single GPUs");
    }
}
