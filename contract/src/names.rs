//! Every name that both programs, or a program and AWS, systemd or Kubernetes, must spell alike.

/// Tag on everything that belongs to a fleet; its value is the fleet's name.
pub const TAG_FLEET: &str = "rollcall:fleet";
/// Tag that says which layer owns a resource.
pub const TAG_LAYER: &str = "rollcall:layer";
/// Tag with the hash of the specification that a resource was made from.
pub const TAG_SPEC: &str = "rollcall:spec";
/// Tag that says which pool an instance or a launch template belongs to.
pub const TAG_POOL: &str = "rollcall:pool";
/// Tag on the instances of a pool whose GPUs no device plugin offers: a [`crate::agent_config::GpuOffer`].
pub const TAG_GPU_OFFER: &str = "rollcall:gpu-offer";
/// Tag that a node puts on its own instance: the outcome of its join, `<outcome> <Reason>`.
pub const TAG_JOIN: &str = "rollcall:join";
/// Tag on a baked image: the name of its definition in `amis/`.
pub const TAG_IMAGE: &str = "rollcall:image";
/// Tag on a baked image: the Kubernetes minor version that its kubelet is of, `1.34`.
pub const TAG_IMAGE_KUBERNETES: &str = "rollcall:k8s";
/// Tag on a baked image: the branch of NVIDIA's driver in it, `580`; `none` where there is none.
pub const TAG_IMAGE_DRIVER: &str = "rollcall:driver";
/// Tag on a baked image: the agent's version.
pub const TAG_IMAGE_AGENT: &str = "rollcall:agent";
/// Tag on a baked image: SHA-256 of the agent's tarball.
pub const TAG_IMAGE_AGENT_SHA256: &str = "rollcall:agent-sha256";
/// Tag on a baked image: the image that it was made from.
pub const TAG_IMAGE_SOURCE: &str = "rollcall:source";
/// Tag on everything that a build runs, and on what it makes: the image's name, for what a dead build
/// leaves behind.
pub const TAG_IMAGE_BUILD: &str = "rollcall:image-build";
/// Tag on a baked image: when what is in it was found to be what was asked for.
pub const TAG_IMAGE_VERIFIED: &str = "rollcall:verified";
/// Tag on a baked image: the channels that it is in, with a blank between.
pub const TAG_IMAGE_CHANNEL: &str = "rollcall:channel";
/// Tag on a baked image: when it was last promoted, by channel: `stable=2026-11-21T23:36:35Z`.
pub const TAG_IMAGE_PROMOTED: &str = "rollcall:promoted";
/// Tag on a node's report parameter that binds it to the instance that wrote it.
pub const PARAMETER_TAG_INSTANCE: &str = "rollcall-instance";

/// Prefix of the parameters that nodes write. Not under `aws` or `ssm`: Parameter Store reserves
/// those (`docs.aws.amazon.com`, Parameter Store naming constraints).
pub const REPORT_PREFIX: &str = "/rollcall";
/// Prefix of the parameters that `control` writes.
pub const CONTROL_PREFIX: &str = "/rollcall-control";
/// The largest report value in bytes: below the 4 KB of a standard parameter.
pub const REPORT_VALUE_MAX: usize = 3584;

/// Where one node's join report is kept: `/rollcall/<cluster>/<pool>/<instance-id>`.
#[must_use]
pub fn report_parameter(cluster: &str, pool: &str, instance_id: &str) -> String {
    format!("{REPORT_PREFIX}/{cluster}/{pool}/{instance_id}")
}

/// Where all reports of a cluster are kept, with the closing slash.
#[must_use]
pub fn report_parameter_prefix(cluster: &str) -> String {
    format!("{REPORT_PREFIX}/{cluster}/")
}

/// Where the evidence of one node's failed joins is kept in the fleet's evidence bucket. The prefix is
/// the instance's ARN, because that is what IAM can bind it to.
#[must_use]
pub fn evidence_key(cluster: &str, instance_arn: &str, name: &str) -> String {
    format!("evidence/{cluster}/{instance_arn}/{name}")
}

/// The enforcement policy of a pool, which its nodes read before a gate closes.
#[must_use]
pub fn policy_parameter(cluster: &str, pool: &str) -> String {
    format!("{CONTROL_PREFIX}/{cluster}/{pool}/policy")
}

/// The `n`th lease on a fleet. No pool may be called `lease`.
#[must_use]
pub fn lease_parameter(cluster: &str, n: u64) -> String {
    format!("{CONTROL_PREFIX}/{cluster}/lease/{n}")
}

/// The agent's configuration on a node.
pub const AGENT_CONFIG_PATH: &str = "/etc/rollcall/agent.yaml";
/// The join's run directory, read by the watch.
pub const JOIN_RUN_DIR: &str = "/run/rollcall";
/// The join report on the node.
pub const REPORT_PATH: &str = "/run/rollcall/report.json";
/// What the join hands over of the configuration, for the watch.
pub const WATCH_SETTINGS_PATH: &str = "/run/rollcall/watch.json";
/// What kubelet's drop-in asserts: it exists once the gates before registration have passed.
pub const ADMITTED_PATH: &str = "/run/rollcall-gate/admitted";
/// The join's journal and spool.
pub const JOIN_STATE_DIR: &str = "/var/lib/rollcall";
/// The watch's own run directory.
pub const WATCH_RUN_DIR: &str = "/run/rollcall-watch";
/// The watch's own state.
pub const WATCH_STATE_DIR: &str = "/var/lib/rollcall-watch";
/// The watch asks here for a reset of a GPU; a path unit starts [`UNIT_GPU_RESET`] then.
pub const GPU_RESET_REQUEST: &str = "/run/rollcall-watch/gpu-reset";
/// How the last reset ended.
pub const GPU_RESET_RESULT: &str = "/run/rollcall-gpu-reset/result.json";
/// Drop-in NodeConfigs that nodeadm merges after the user data.
pub const NODEADM_DROPIN_DIR: &str = "/etc/eks/nodeadm.d";

/// The media type of a NodeConfig part in MIME user data.
pub const MIME_NODE_CONFIG: &str = "application/node.eks.aws";
/// The media type of the part that carries the agent config.
pub const MIME_CLOUD_CONFIG: &str = "text/cloud-config";
/// The media type of the part that installs the agent where it is not baked in.
pub const MIME_SHELL_SCRIPT: &str = "text/x-shellscript";

/// The unit that runs the join.
pub const UNIT_JOIN: &str = "rollcall-join.service";
/// The unit that watches the node after its join.
pub const UNIT_WATCH: &str = "rollcall-agent.service";
/// Resets a GPU for the watch, outside its sandbox.
pub const UNIT_GPU_RESET: &str = "rollcall-gpu-reset.service";
/// Runs nodeadm's config phase for the join, outside its sandbox.
pub const UNIT_NODEADM_CONFIG: &str = "rollcall-nodeadm@config.service";
/// Runs nodeadm's run phase for the join, outside its sandbox.
pub const UNIT_NODEADM_RUN: &str = "rollcall-nodeadm@run.service";
/// Takes the GPU driver's modules out for the join, outside its sandbox.
pub const UNIT_REPAIR_UNLOAD: &str = "rollcall-repair@unload.service";
/// Loads them again.
pub const UNIT_REPAIR_LOAD: &str = "rollcall-repair@load.service";
/// Resets the GPUs that [`GPUS_TO_RESET_PATH`] lists.
pub const UNIT_REPAIR_RESET: &str = "rollcall-repair@reset.service";
/// PCI addresses, one a line.
pub const GPUS_TO_RESET_PATH: &str = "/run/rollcall/gpus-to-reset";
/// Has the GPUs compute a little, outside the join's sandbox.
pub const UNIT_CANARY: &str = "rollcall-canary.service";
/// How that ended, or how far it has come.
pub const CANARY_RESULT_PATH: &str = "/run/rollcall-canary/result.json";
/// kubelet.
pub const UNIT_KUBELET: &str = "kubelet.service";

/// The node condition that EKS node auto repair and Karpenter act on.
pub const CONDITION_ACCELERATED_HARDWARE: &str = "AcceleratedHardwareReady";
/// What we publish instead where eks-node-monitoring-agent owns that condition.
pub const CONDITION_GPU_NODE_HEALTHY: &str = "GpuNodeHealthy";

/// The extended resource under which the NVIDIA device plugin offers GPUs.
pub const RESOURCE_GPU: &str = "nvidia.com/gpu";
/// What the resources begin with under which the NVIDIA device plugin offers MIG devices by profile:
/// `nvidia.com/mig-1g.10gb`.
pub const RESOURCE_MIG_PREFIX: &str = "nvidia.com/mig-";
/// The driver under whose name the NVIDIA DRA driver offers GPUs, in ResourceSlices.
pub const DRA_DRIVER: &str = "gpu.nvidia.com";
/// Label with a pool's class: `system`, `infra`, `apps` or `gpu`.
pub const LABEL_NODE_TYPE: &str = "node-type";
/// Label with a pool's name.
pub const LABEL_POOL: &str = "rollcall.dev/pool";
/// Label of nodes that NVIDIA's device plugin, as `control` installs it, runs on: `install`.
pub const LABEL_DEVICE_PLUGIN: &str = "rollcall.dev/device-plugin";

/// Prefix of the serial console's line.
pub const CONSOLE_PREFIX: &str = "ROLLCALL ";
/// Port of the agent's metrics, which is dcgm-exporter's.
pub const METRICS_PORT: u16 = 9400;

/// The DNS suffix of the AWS partition that a region is in.
#[must_use]
pub fn partition_suffix(region: &str) -> &'static str {
    // botocore's endpoint partitions: the prefix of a region's name says its partition.
    const SUFFIXES: [(&str, &str); 7] = [
        ("cn-", "amazonaws.com.cn"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("eusc-", "amazonaws.eu"),
        ("", "amazonaws.com"),
    ];
    let found = SUFFIXES.iter().find(|(prefix, _)| region.starts_with(prefix));
    found.map_or("amazonaws.com", |(_, suffix)| suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_its_suffix() {
        for (region, suffix) in [
            ("us-east-1", "amazonaws.com"),
            ("us-gov-west-1", "amazonaws.com"),
            ("eu-central-1", "amazonaws.com"),
            ("cn-northwest-1", "amazonaws.com.cn"),
            ("us-iso-east-1", "c2s.ic.gov"),
            ("us-isob-east-1", "sc2s.sgov.gov"),
            ("us-isof-south-1", "csp.hci.ic.gov"),
            ("eu-isoe-west-1", "cloud.adc-e.uk"),
            ("eusc-de-east-1", "amazonaws.eu"),
        ] {
            assert_eq!(partition_suffix(region), suffix, "{region}");
        }
    }
}
