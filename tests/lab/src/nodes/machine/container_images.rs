//! Container images for machines: what add-ons and sandboxes run, under the names that they are
//! asked for, made of a static busybox and the lab's pause.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::MachineError;
use crate::directory::{DirectoryError, write_atomically};
use crate::kubernetes::real::Parts;

const REGISTRY: &str = "602401143452.dkr.ecr.us-east-1.amazonaws.com";

/// The VPC CNI's daemon as far as a node notices: it takes a moment, puts its configuration in
/// place, and answers on ipamd's introspection port. While the lab holds it back it does nothing.
const AWS_NODE_DOUBLE: &str = r#"#!/bin/busybox sh
while [ -e /host/run/rollcall-lab/simulated/var/lib/kubelet-standin/hold-cni ]; do
    /bin/busybox sleep 0.2
done
/bin/busybox sleep 0.8
dir=/host/etc/cni/net.d
/bin/busybox cat >$dir/.10-aws.conflist <<'END'
{"cniVersion": "0.4.0", "name": "aws-cni", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false,
   "ipam": {"type": "host-local", "subnet": "192.168.77.0/24", "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}
END
/bin/busybox mv $dir/.10-aws.conflist $dir/10-aws.conflist
/bin/busybox mkdir -p /www/v1
echo '{"TotalIPs":14,"AssignedIPs":1}' >/www/v1/enis
exec /bin/busybox httpd -f -p 127.0.0.1:61679 -h /www
"#;

/// There, and nothing more: kube-proxy, the pod identity agent and CoreDNS.
const IDLE_DOUBLE: &str = "#!/bin/busybox sh\nexec /bin/busybox sleep 2147483647\n";

/// The image of the device plugin that `control` installs.
const DEVICE_PLUGIN: &str = "nvcr.io/nvidia/k8s-device-plugin:v0.18.0";

/// Versions of add-ons that the emulator hands out when none is asked for.
const AWS_NODE: [&str; 1] = ["amazon-k8s-cni:v1.20.4-eksbuild.1"];
const IDLE: [&str; 4] = [
    "eks/kube-proxy:v1.34.2-eksbuild.2",
    "eks/kube-proxy:v1.34.0-eksbuild.2",
    "eks/eks-pod-identity-agent:v1.3.9-eksbuild.3",
    "eks/coredns:v1.12.4-eksbuild.1",
];

/// Writes one archive for each image.
pub(super) fn write(dir: &Path, parts: &Parts) -> Result<(), MachineError> {
    let pause = read(parts.path("pause")?)?;
    let busybox = read(parts.path("busybox-static")?)?;
    let plugin = read(parts.path("device-plugin-double")?)?;
    let named = |names: &[&str]| names.iter().map(|name| format!("{REGISTRY}/{name}")).collect();
    let double = |script: &str| {
        vec![("bin/busybox", busybox.clone()), ("double", script.as_bytes().to_vec())]
    };
    let images = [
        (
            "pause",
            vec!["localhost/kubernetes/pause:latest".to_owned()],
            vec![("pause", pause)],
            "/pause",
        ),
        (
            "device-plugin-double",
            vec![DEVICE_PLUGIN.to_owned()],
            vec![("double", plugin)],
            "/double",
        ),
        ("aws-node-double", named(&AWS_NODE), double(AWS_NODE_DOUBLE), "/double"),
        ("idle-double", named(&IDLE), double(IDLE_DOUBLE), "/double"),
    ];
    for (name, tags, files, entrypoint) in images {
        let packed = archive(&tags, &files, entrypoint)
            .map_err(|error| MachineError::System(format!("pack the image `{name}`"), error))?;
        write_atomically(&dir.join(format!("{name}.tar")), &packed, 0o644)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, MachineError> {
    Ok(std::fs::read(path).map_err(DirectoryError::of("read", path))?)
}

/// An image as `docker save` writes it, which containerd imports.
fn archive(
    tags: &[String],
    files: &[(&str, Vec<u8>)],
    entrypoint: &str,
) -> std::io::Result<Vec<u8>> {
    let layer = tarball(files)?;
    let digest = hex::encode(Sha256::digest(&layer));
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": [entrypoint], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    })
    .to_string();
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let layer_name = format!("{digest}.tar");
    let manifest =
        json!([{"Config": config_name, "RepoTags": tags, "Layers": [layer_name]}]).to_string();
    tarball(&[
        (&config_name, config.into_bytes()),
        (&layer_name, layer),
        ("manifest.json", manifest.into_bytes()),
    ])
}

fn tarball(files: &[(&str, Vec<u8>)]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, content.as_slice())?;
    }
    let mut packed = builder.into_inner()?;
    packed.flush()?;
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_archive_names_its_own_layer_by_digest() {
        let tags = ["registry/name:v1".to_owned()];
        let packed = archive(&tags, &[("pause", b"binary".to_vec())], "/pause").unwrap();
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(packed.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, content);
        }
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "registry/name:v1");
        let layer = manifest[0]["Layers"][0].as_str().unwrap();
        let config: serde_json::Value =
            serde_json::from_slice(&files[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        let digest = hex::encode(Sha256::digest(&files[layer]));
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{digest}"));
    }
}
