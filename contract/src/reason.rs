//! Every named cause, in one table: owner, weight, meaning, hint, node-condition reason, and what
//! it explains. The agent, `diagnose`, `explain`, the docs page and the tests read this table.
//!
//! A reason enters together with the test that reproduces it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::phase::Phase;

/// Who sees a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The gate of one phase, on the node.
    Phase(Phase),
    /// The node, in any phase.
    AnyPhase,
    /// The watch, once the node has joined.
    AfterJoin,
    /// Only `control`, from outside the node.
    Outside,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phase(phase) => f.pad(phase.label()),
            Self::AnyPhase => f.pad("any phase"),
            Self::AfterJoin => f.pad("after the join"),
            Self::Outside => f.pad("outside"),
        }
    }
}

/// Whether a cause closes the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It does: the node would not work.
    Hard,
    /// It would, and is only observed until `enforceReasons` of the pool says `gate`: a new
    /// detection, or one that the condition answers after the join.
    Observed,
    /// It is reported, and the node is admitted.
    Soft,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name on every channel.
    pub name: &'static str,
    /// Who sees it.
    pub owner: Owner,
    /// Whether it closes the gate.
    pub weight: Weight,
    /// What it means, one sentence.
    pub meaning: &'static str,
    /// What to do, with a command where there is one; may hold `{cluster}`, `{pool}`, `{instance}`.
    pub hint: &'static str,
    /// The node condition's reason: eks-node-monitoring-agent's vocabulary, which Karpenter and
    /// EKS node auto repair match. Empty: the reason's own name.
    pub node_reason: &'static str,
    /// Reasons that are mere consequences of this one.
    pub explains: &'static [Reason],
}

macro_rules! reasons {
    ($($name:ident {
        $owner:expr, $weight:ident, $meaning:literal, $hint:literal
        $(, node: $node:literal)? $(, explains: [$($explained:ident),* $(,)?])? $(,)?
    })*) => {
        /// A named cause, CamelCase as in Kubernetes conditions. Hard to confuse, easy to grep.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the join.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The reason's row of the table.
            #[must_use]
            pub const fn entry(self) -> Entry {
                use Owner::{AfterJoin, AnyPhase, Outside};
                use Phase::{Bootstrap, Cni, Configure, Drivers, Identify, Preflight, Ready, Register};
                const fn of(phase: Phase) -> Owner { Owner::Phase(phase) }
                match self {
                    $(Self::$name => Entry {
                        name: stringify!($name),
                        owner: $owner,
                        weight: Weight::$weight,
                        meaning: $meaning,
                        hint: $hint,
                        node_reason: concat!($($node)?),
                        explains: &[$($(Self::$explained),*)?],
                    },)*
                }
            }
        }
    };
}

reasons! {
    NetworkNotConfigured { of(Identify), Hard,
        "No network interface of the node has an address and a route.",
        "read the console: aws ec2 get-console-output --instance-id {instance} --latest; on the node: networkctl status, journalctl -b -u systemd-networkd -u nodeadm-boot-hook",
        explains: [ImdsUnreachable],
    }
    ImdsUnreachable { of(Identify), Hard,
        "The instance metadata service does not answer.",
        "check the instance's metadata options: aws ec2 describe-instances --instance-ids {instance} --query 'Reservations[].Instances[].MetadataOptions'",
        explains: [IdentityIncomplete, CredentialsMissing, NodeConfigMissing],
    }
    ImdsTokenDenied { of(Identify), Hard,
        "The instance metadata service refuses to hand out an IMDSv2 token.",
        "enable the metadata endpoint: aws ec2 modify-instance-metadata-options --instance-id {instance} --http-endpoint enabled --http-tokens required",
        explains: [IdentityIncomplete, CredentialsMissing, NodeConfigMissing],
    }
    IdentityIncomplete { of(Identify), Hard,
        "The instance identity document lacks what a node must know of itself.",
        "read it on the node: curl -H \"X-aws-ec2-metadata-token: $TOKEN\" http://169.254.169.254/latest/dynamic/instance-identity/document",
    }

    AgentConfigInvalid { of(Configure), Hard,
        "The agent's configuration is missing or does not say what it must.",
        "render it again and compare: control up writes it into the launch template's user data as /etc/rollcall/agent.yaml",
    }
    AgentConfigUnknownReason { of(Configure), Soft,
        "The agent's configuration makes an exception for a reason that this agent does not have.",
        "correct the name under enforceReasons: the nearest known one is in the summary; until then that exception does nothing",
    }
    UserDataNotMime { of(Configure), Hard,
        "The user data is neither MIME nor a NodeConfig, so nodeadm finds nothing in it.",
        "start the user data with `MIME-Version: 1.0` and a multipart boundary; control up writes it so",
        explains: [NodeConfigMissing],
    }
    NodeConfigMissing { of(Configure), Hard,
        "No NodeConfig names the cluster: nodeadm would stop with `Name is missing in cluster configuration`.",
        "add an application/node.eks.aws part to the launch template's user data; control up writes it so",
        explains: [NodeadmConfigFailed],
    }
    NodeConfigInvalid { of(Configure), Hard,
        "The merged NodeConfig cannot be read, or lacks a value that nodeadm demands.",
        "correct the named field in the launch template's user data or in /etc/eks/nodeadm.d",
        explains: [NodeadmConfigFailed],
    }
    NodeConfigUnknownField { of(Configure), Soft,
        "The NodeConfig has a field or a value that nodeadm drops without a word.",
        "correct the field's name: the nearest known one is in the summary",
    }
    ClusterFactsStale { of(Configure), Hard,
        "The NodeConfig names an endpoint or a CA that the cluster does not have: it was made for an earlier cluster of this name.",
        "aws eks describe-cluster --name {cluster} --query 'cluster.[endpoint,certificateAuthority]'; control up renews the launch template, then replace the instance",
        explains: [ApiServerDnsFailed, ApiServerUnreachable, ApiServerTlsUntrusted, ApiServerUnauthorized],
    }
    NodeConfigIgnored { of(Configure), Soft,
        "nodeadm ignores the user data, because a part of it does not decode, and goes by the drop-ins.",
        "correct the named part of the launch template's user data",
    }
    NodeConfigContradictory { of(Configure), Soft,
        "Two NodeConfigs name different clusters, and the later one wins.",
        "keep one of them: the launch template's user data, or the file in /etc/eks/nodeadm.d",
    }
    NodeLabelForbidden { of(Configure), Hard,
        "kubelet would end at its start: it may not set one of the labels that it was given, or the label is malformed.",
        "take the label out of --node-labels; Kubernetes' own, like node-role.kubernetes.io, are set from outside: kubectl label node",
        explains: [NodeadmTimedOut, NodeadmRunFailed, KubeletCrashLoop, NodeNotRegistered],
    }
    StartupTaintLost { of(Configure), Soft,
        "A taint that one source asks for is replaced by another's list, so an autoscaler may take the node for a stranger's.",
        "name all taints in one place: kubelet's --register-with-taints replaces registerWithTaints, and a later list an earlier one",
    }
    CloudInitStuck { of(Configure), Hard,
        "cloud-init's last stage does not end, and the node must not register before it has.",
        "on the node: systemctl list-jobs; cloud-init status --long; a user script hangs",
    }

    ClockSkewed { of(Preflight), Hard,
        "The node's clock is more than five minutes off, so signed requests and certificates are refused.",
        "on the node: chronyc makestep, then chronyc tracking",
        explains: [CredentialsDenied, ApiServerTlsUntrusted, ApiServerUnauthorized],
    }
    WrongImage { of(Preflight), Hard,
        "The image is not an EKS AL2023 one, and has no nodeadm.",
        "use an EKS AL2023 image: aws ssm get-parameter --name /aws/service/eks/optimized-ami/<version>/amazon-linux-2023/x86_64/nvidia/recommended/image_id",
        explains: [
            NodeadmMissing, KubeletMissing, KubeletCredentialPluginMissing, ContainerRuntimeMissing,
            CniPluginsMissing, ContainerToolkitMissing, DriverNotLoaded, NodeadmNotExecutable,
        ],
    }
    DiskFull { of(Preflight), Hard,
        "A file system that nodeadm, containerd or kubelet writes to is full.",
        "on the node: df -h; df -i; then free space, or give the launch template a larger root volume",
        explains: [NodeadmConfigFailed, NodeadmRunFailed, ContainerdNotActive, KubeletCrashLoop],
    }
    NodeadmMissing { of(Preflight), Hard,
        "There is no /usr/bin/nodeadm: this is not an EKS AL2023 image.",
        "use an EKS AL2023 image: aws ssm get-parameter --name /aws/service/eks/optimized-ami/<version>/amazon-linux-2023/x86_64/nvidia/recommended/image_id",
        explains: [NodeadmNotExecutable, NodeadmConfigFailed, NodeadmRunFailed],
    }
    NodeadmNotExecutable { of(Preflight), Hard,
        "There is an /usr/bin/nodeadm, and it cannot be executed.",
        "on the node: ls -lZ /usr/bin/nodeadm; findmnt -T /usr/bin; ausearch -m avc -ts boot; a hardening script took its mode, its label or its mount's exec option",
        explains: [NodeadmConfigFailed, NodeadmRunFailed],
    }
    KubeletMissing { of(Preflight), Hard,
        "There is no /usr/bin/kubelet: this is not an EKS AL2023 image.",
        "use an EKS AL2023 image: aws ssm get-parameter --name /aws/service/eks/optimized-ami/<version>/amazon-linux-2023/x86_64/nvidia/recommended/image_id",
        explains: [NodeadmConfigFailed, NodeadmRunFailed],
    }
    KubeletCredentialPluginMissing { of(Preflight), Hard,
        "A program with which kubelet gets credentials, for the API server or for images, is not there.",
        "on the node: ls -l /usr/bin/aws /etc/eks/image-credential-provider; use an EKS AL2023 image",
        explains: [NodeadmConfigFailed, KubeletCrashLoop, KubeletUnauthorized],
    }
    ContainerRuntimeMissing { of(Preflight), Hard,
        "containerd or runc is not on the node.",
        "use an EKS AL2023 image: aws ssm get-parameter --name /aws/service/eks/optimized-ami/<version>/amazon-linux-2023/x86_64/nvidia/recommended/image_id",
        explains: [NodeadmConfigFailed, NodeadmRunFailed, ContainerRuntimeMisconfigured, ContainerdNotActive],
    }
    KubeletVersionSkew { of(Preflight), Soft,
        "kubelet is newer than the API server, or more than three minor versions older.",
        "control plan shows the cluster's version; roll the pool to an image of that version",
    }
    CredentialsMissing { of(Preflight), Hard,
        "The instance has no role credentials.",
        "give the node group a role with an instance profile: aws ec2 describe-iam-instance-profile-associations --filters Name=instance-id,Values={instance}",
        explains: [ApiServerUnauthorized],
    }
    CredentialsDenied { of(Preflight), Hard,
        "AWS refuses the instance's role credentials.",
        "aws iam get-role --role-name <node role>: does it exist, and does ec2.amazonaws.com stand in its trust policy?",
        explains: [ApiServerUnauthorized],
    }
    ProxyMisconfigured { of(Preflight), Hard,
        "The proxy that the NodeConfig names does not resolve, does not answer, or refuses to connect.",
        "correct spec.instance.environment.default in the NodeConfig: HTTPS_PROXY, and in NO_PROXY what needs no proxy (169.254.169.254, the VPC's range, .eks.amazonaws.com)",
        explains: [
            ApiServerDnsFailed, ApiServerUnreachable, Ec2ApiUnreachable, EcrUnreachable, StsUnreachable,
            NodeadmTimedOut,
        ],
    }
    ApiServerDnsFailed { of(Preflight), Hard,
        "The name of the cluster's API server does not resolve.",
        "check enableDnsSupport and enableDnsHostnames of the VPC and the endpoint's access mode: control facts",
        explains: [ApiServerUnreachable],
    }
    ApiServerUnreachable { of(Preflight), Hard,
        "No TCP connection to the cluster's API server comes about.",
        "open port 443 from the node's security group to the cluster's: control diagnose {instance}",
        explains: [NodeNotRegistered],
    }
    ApiServerTlsUntrusted { of(Preflight), Hard,
        "The API server's certificate was not signed by the CA in the NodeConfig.",
        "the node was configured for another cluster, or the cluster was made anew: control up renews the launch template",
        explains: [NodeNotRegistered],
    }
    ApiServerUnauthorized { of(Preflight), Hard,
        "The API server does not know this node's role, or knows it under another name.",
        "aws eks create-access-entry --cluster-name {cluster} --type EC2_LINUX --principal-arn <node role>; control up does it",
        explains: [NodeNotRegistered],
    }
    Ec2ApiUnreachable { of(Preflight), Hard,
        "The EC2 API does not answer the node, and nodeadm has to ask it for the node's name.",
        "add a VPC endpoint for com.amazonaws.<region>.ec2, or a NAT route; or set featureGates.InstanceIdNodeName in the NodeConfig, which needs no EC2",
        explains: [NodeadmConfigFailed, NodeadmTimedOut],
    }
    Ec2ApiDenied { of(Bootstrap), Hard,
        "EC2 refuses to describe the instance to its own role, and nodeadm waits ten minutes for that.",
        "aws iam attach-role-policy --role-name <node role> --policy-arn arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy; or set featureGates.InstanceIdNodeName in the NodeConfig, which needs no EC2",
        explains: [NodeadmConfigFailed, NodeadmTimedOut],
    }
    EcrUnreachable { of(Preflight), Soft,
        "The regional ECR API does not answer the node: only images that are on it already can run.",
        "add VPC endpoints for com.amazonaws.<region>.ecr.api, .ecr.dkr and .s3, or a NAT route",
    }
    StsUnreachable { of(Preflight), Soft,
        "The regional STS endpoint does not answer the node.",
        "add a VPC endpoint for com.amazonaws.<region>.sts, or a NAT route",
    }

    GpuAbsent { of(Drivers), Hard,
        "The instance type has GPUs, and the PCI bus shows none.",
        "replace the instance: aws ec2 terminate-instances --instance-ids {instance}",
        node: "NvidiaDeviceCountMismatch",
        explains: [DriverNotLoaded, DriverLibraryMissing],
    }
    GpuCountShort { of(Drivers), Hard,
        "Fewer GPUs work than the instance type has.",
        "replace the instance: aws ec2 terminate-instances --instance-ids {instance}",
        node: "NvidiaDeviceCountMismatch",
        explains: [GpuAllocatableShort],
    }
    GpuCountUnknown { of(Drivers), Soft,
        "How many GPUs this instance type has is in neither the agent's configuration nor its table.",
        "say it in the agent config: control up writes `gpus` from aws ec2 describe-instance-types --query 'InstanceTypes[].GpuInfo'",
    }
    GpuModelUnexpected { of(Drivers), Soft,
        "The GPUs are not the model that EC2 lists for this instance type.",
        "compare: aws ec2 describe-instance-types --instance-types <type> --query 'InstanceTypes[].GpuInfo'",
    }
    DriverNotLoaded { of(Drivers), Hard,
        "The NVIDIA kernel module is not loaded.",
        "on the node: journalctl -b -u nvidia-setup -u nvidia-kmod-load; use an EKS AL2023 NVIDIA image",
        node: "DCGMError",
        explains: [GpuCountShort, DriverLibraryMissing],
    }
    DriverUnitFailed { of(Drivers), Hard,
        "The unit that loads the NVIDIA driver has failed for good.",
        "on the node: systemctl status nvidia-setup nvidia-kmod-load; journalctl -b -u nvidia-setup -u nvidia-kmod-load; reboot, or roll the pool to a good image",
        node: "DCGMError",
        explains: [DriverNotLoaded, GpuCountShort, DriverLibraryMissing],
    }
    DriverKernelMismatch { of(Drivers), Hard,
        "The NVIDIA kernel module was built for other kernels than the one that runs.",
        "boot the kernel that the image was built with, or roll the pool to an image whose driver fits: a kernel update without a driver does this",
        node: "DCGMError",
        explains: [DriverUnitFailed, DriverNotLoaded, GpuCountShort, DriverLibraryMissing],
    }
    DriverBranchMismatch { of(Drivers), Hard,
        "The image has settled on a driver of another kind than these GPUs need: it was booted on another family of GPUs when it was made.",
        "build the image on an instance without a GPU, so that the first boot chooses: ls -l /opt/nvidia/current; control's check-image finds such images",
        node: "DCGMError",
        explains: [DriverInitFailed, DriverUnitFailed, DriverNotLoaded, GpuCountShort],
    }
    DriverTooOld { of(Drivers), Hard,
        "The NVIDIA driver is older than these GPUs: it does not know them.",
        "roll the pool to an EKS AL2023 NVIDIA image with a driver of the named branch or newer",
        node: "DCGMError",
        explains: [DriverInitFailed, DriverUnitFailed, DriverNotLoaded, GpuCountShort],
    }
    DriverBelowPolicy { of(Drivers), Soft,
        "The NVIDIA driver is older than the pool's configuration asks for (`minDriver`).",
        "roll the pool to a newer image: control up builds its launch template anew; or ask for less",
    }
    DriverLibraryMissing { of(Drivers), Hard,
        "libnvidia-ml.so.1 cannot be loaded.",
        "on the node: ldconfig -p | grep libnvidia-ml; then run ldconfig, or use an EKS AL2023 NVIDIA image",
        node: "DCGMError",
        explains: [GpuCountShort],
    }
    DriverLibraryMismatch { of(Drivers), Hard,
        "The NVIDIA kernel module and its user-space library are of different versions.",
        "load the module that fits the library: reboot, or roll the pool to an image whose driver packages agree",
        node: "DCGMError",
        explains: [GpuCountShort, GpuLost],
    }
    DriverHang { of(Drivers), Hard,
        "The NVIDIA driver does not answer.",
        "reboot the instance: aws ec2 reboot-instances --instance-ids {instance}; replace it when it comes back",
        node: "DCGMError",
        explains: [GpuCountShort],
    }
    DriverInitFailed { of(Drivers), Hard,
        "NVML does not initialise, for a cause that it does not name.",
        "on the node: rollcall-agent diagnose, nvidia-smi, dmesg | grep NVRM",
        node: "DCGMError",
        explains: [GpuCountShort],
    }
    GpuLost { of(Drivers), Hard,
        "A GPU has fallen off the bus: NVML says that it is lost.",
        "replace the instance: aws ec2 terminate-instances --instance-ids {instance}",
        node: "NvidiaXID79Error",
        explains: [GpuCountShort, DriverHang],
    }

    GpuResetRequired { of(Drivers), Hard,
        "A GPU wants a reset before it can be used again.",
        "on the node, with nothing using it: nvidia-smi --gpu-reset -i <index>; or reboot: aws ec2 reboot-instances --instance-ids {instance}",
        node: "NvidiaXID95Error",
        explains: [GpuCountShort],
    }
    EccUncorrectable { of(Drivers), Observed,
        "A GPU's memory has had errors since the driver was loaded that it could not correct.",
        "on the node, with nothing using it: nvidia-smi --gpu-reset -i <index>; replace the instance when they come back: aws ec2 terminate-instances --instance-ids {instance}",
        node: "NvidiaXID48Error",
    }
    SramErrorsExceeded { of(Drivers), Observed,
        "A GPU's SRAM has had more uncorrected errors in its life than NVIDIA lets a board have.",
        "replace the instance: aws ec2 terminate-instances --instance-ids {instance}",
        node: "NvidiaXID64Error",
        explains: [EccUncorrectable],
    }
    RowRemapPending { of(Drivers), Hard,
        "A GPU has set bad memory aside, and uses it still until it is reset.",
        "on the node, with nothing using it: nvidia-smi --gpu-reset -i <index>; or reboot: aws ec2 reboot-instances --instance-ids {instance}",
        node: "NvidiaXID63Error",
        explains: [EccUncorrectable],
    }
    RowRemapFailed { of(Drivers), Hard,
        "A GPU has bad memory and no spare rows left to put in its place.",
        "replace the instance: aws ec2 terminate-instances --instance-ids {instance}",
        node: "NvidiaXID64Error",
        explains: [RowRemapPending, EccUncorrectable, RowRemapSparesLow],
    }
    RowRemapSparesLow { of(Drivers), Soft,
        "A bank of a GPU's memory has next to no spare rows left.",
        "nothing yet; plan to replace the instance: nvidia-smi -q -d ROW_REMAPPER shows the banks",
    }
    FatalXid { of(Drivers), Observed,
        "The driver has logged an error since the boot after which a GPU cannot be trusted.",
        "dmesg | grep 'NVRM: Xid'; the summary has the code and what NVIDIA advises for it",
        node: "NvidiaXID95Error",
    }
    FabricManagerNotRunning { of(Drivers), Hard,
        "The node's GPUs are joined by NVSwitches, and nvidia-fabricmanager does not run.",
        "on the node: systemctl status nvidia-fabricmanager; journalctl -b -u nvidia-fabricmanager; its version has to be the driver's",
        explains: [FabricNotReady, FabricUnhealthy, NvlinkDown],
    }
    FabricNotReady { of(Drivers), Hard,
        "A GPU has not been taken into the NVSwitch fabric: programs that use several GPUs cannot start.",
        "on the node: nvidia-smi -q | grep -A 5 Fabric; journalctl -b -u nvidia-fabricmanager; then restart nvidia-fabricmanager, or reboot",
        node: "NvidiaFabricError",
    }
    FabricUnhealthy { of(Drivers), Observed,
        "The NVSwitch fabric calls a GPU's place in it unhealthy.",
        "on the node: nvidia-smi -q | grep -A 10 Fabric; replace the instance: aws ec2 terminate-instances --instance-ids {instance}",
        node: "NvidiaFabricError",
    }
    NvlinkDown { of(Drivers), Hard,
        "NVLinks of a GPU are down: GPUs reach each other slowly, or not at all.",
        "on the node: nvidia-smi nvlink -s; reboot, then replace the instance: aws ec2 terminate-instances --instance-ids {instance}",
        node: "NvidiaNVLinkError",
    }
    PcieLinkDegraded { of(Drivers), Soft,
        "A GPU has fewer PCIe lanes than its like on this node: copies to and from it are slower.",
        "on the node: nvidia-smi -q -d PCIE; reboot, then replace the instance: aws ec2 terminate-instances --instance-ids {instance}",
    }
    EccDisabled { of(Drivers), Soft,
        "A GPU with HBM runs with its error correction off.",
        "on the node, with nothing using it: nvidia-smi -i <index> -e 1, then reboot",
    }
    CudaCanaryFailed { of(Drivers), Hard,
        "NVML finds nothing wrong with the GPUs, and a small program that fills and copies their memory through CUDA fails.",
        "the summary has the call; on the node: journalctl -b -u rollcall-canary, ldconfig -p | grep libcuda, dmesg | grep NVRM; to let such nodes join: enforceReasons: {CudaCanaryFailed: observe}",
    }
    PersistenceModeOff { of(Drivers), Soft,
        "A GPU is shut down whenever no program uses it: each start of a program waits for it, and it forgets its settings.",
        "on the node: systemctl status nvidia-persistenced; or nvidia-smi -pm 1",
    }
    MigLayoutMismatch { of(Drivers), Soft,
        "The GPUs are not divided (MIG) as the node's configuration says, or one that is to be divided has no parts.",
        "on the node: nvidia-smi -L; then nvidia-smi mig -cgi <profiles> -C, or nvidia-smi -i <index> -mig 0",
        explains: [GpuAllocatableShort, DevicePluginAbsent],
    }
    PeermemMissing { of(Drivers), Soft,
        "The pool's programs reach GPUs of other nodes through nvidia-peermem, and that module is not loaded.",
        "on the node: modprobe nvidia_peermem; EFA needs it no more, so take `peermem` out of the agent's configuration where nothing else does",
    }
    EfaCountShort { of(Drivers), Soft,
        "Fewer EFA devices work than the node has, or should have: traffic between nodes is slower, or goes over TCP.",
        "on the node: ls /sys/class/infiniband, dmesg | grep efa; compare with the launch template's network interfaces of type efa",
    }
    GdrTopologyUnsupported { of(Drivers), Soft,
        "From driver branch 595 on, GPUs and EFA exchange data directly only within one root port or with an IOMMU group, and this node has neither.",
        "roll the pool to an image with driver branch 580, or boot with an IOMMU: readlink /sys/bus/pci/devices/<efa>/iommu_group",
    }

    ContainerToolkitMissing { of(Drivers), Soft,
        "Nothing of NVIDIA's container toolkit is on the node: unless something brings it later, containers get no GPUs.",
        "use an EKS AL2023 NVIDIA image, or install nvidia-container-toolkit before nodeadm runs",
        explains: [ContainerRuntimeMisconfigured, DevicePluginAbsent],
    }
    CdiStale { of(Drivers), Soft,
        "The node's CDI specification names files that are not there: it was made for another driver.",
        "on the node: systemctl restart nvidia-cdi-refresh, or nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml",
    }

    NodeadmConfigFailed { of(Bootstrap), Hard,
        "nodeadm's config phase ended with an error.",
        "on the node: journalctl -b -u rollcall-nodeadm@config",
    }
    NodeadmTimedOut { of(Bootstrap), Hard,
        "nodeadm did not end in time.",
        "on the node: journalctl -b -u rollcall-nodeadm@config -u rollcall-nodeadm@run; an unreachable EC2 API holds it for ten minutes",
    }
    ContainerRuntimeMisconfigured { of(Bootstrap), Hard,
        "containerd's configuration cannot work: it is not readable, or its runtime is not there, or none of its runtimes gives containers GPUs.",
        "compare /etc/containerd/config.toml with spec.containerd.config in the NodeConfig; containerd config dump checks it",
        explains: [ContainerdNotActive, CniNotReady, DevicePluginAbsent],
    }

    MemoryReservedTooLarge { of(Bootstrap), Soft,
        "What is reserved for kubelet and the system takes more than half of the node's memory.",
        "lower maxPods or maxPodsExpression, since nodeadm reserves 11 MiB a pod + 255 MiB, or set spec.kubelet.config.kubeReserved",
    }

    CniPluginsMissing { of(Cni), Hard,
        "The CNI's base plugins are not in /opt/cni/bin.",
        "use an EKS AL2023 image, or install containernetworking-plugins into /opt/cni/bin",
        explains: [CniNotReady],
    }
    CniConfigStale { of(Cni), Soft,
        "The VPC CNI's configuration of an earlier boot lies in /etc/cni/net.d and cannot be moved aside: the node will call itself Ready before its network is.",
        "on the node: lsattr /etc/cni/net.d; findmnt -T /etc/cni/net.d; then remove 10-aws.conflist",
    }
    CniAddonAbsent { of(Cni), Hard,
        "The cluster has no CNI: neither the vpc-cni add-on nor an aws-node DaemonSet.",
        "aws eks create-addon --cluster-name {cluster} --addon-name vpc-cni; control up does it before any node",
        explains: [CniNotReady],
    }
    CniConfigInvalid { of(Cni), Hard,
        "The CNI is installed on the host, and its configuration is not valid or its plugins do not answer.",
        "on the node: ls -l /etc/cni/net.d; then the log of what installs the CNI",
        explains: [CniNotReady],
    }
    CniAddonDegraded { of(Cni), Soft,
        "EKS calls the vpc-cni add-on unhealthy; some nodes may get no network.",
        "aws eks describe-addon --cluster-name {cluster} --addon-name vpc-cni --query addon.health",
    }
    SubnetAddressesExhausted { of(Cni), Soft,
        "The node's subnet has next to no free addresses: pods here will get none.",
        "add a subnet or a secondary range to the VPC, or turn on prefix delegation; aws ec2 describe-subnets shows AvailableIpAddressCount",
    }

    DiskSetupFailed { of(Register), Hard,
        "nodeadm could not set up the instance's local disks.",
        "on the node: journalctl -b -u rollcall-nodeadm@run, lsblk, cat /proc/mdstat; or drop spec.instance.localStorage from the NodeConfig",
        explains: [NodeadmRunFailed, ContainerdNotActive],
    }
    ContainerdNotActive { of(Register), Hard,
        "containerd does not come up, and kubelet needs it.",
        "on the node: systemctl status containerd; journalctl -b -u containerd",
        explains: [NodeadmRunFailed, KubeletCrashLoop, NodeNotRegistered],
    }
    KubeletConfigRejected { of(Register), Hard,
        "kubelet ends at once: it refuses its flags or its configuration.",
        "correct spec.kubelet in the NodeConfig: the summary has kubelet's own words; on the node: journalctl -b -u kubelet",
        explains: [KubeletCrashLoop, NodeadmRunFailed, NodeNotRegistered],
    }
    KubeletUnauthorized { of(Register), Hard,
        "kubelet runs, and the API server refuses it.",
        "aws eks describe-access-entry --cluster-name {cluster} --principal-arn <node role>: is it of type EC2_LINUX? control up puts it right",
        explains: [NodeNotRegistered],
    }
    KubeletCrashLoop { of(Register), Hard,
        "kubelet starts and ends, again and again.",
        "on the node: journalctl -b -u kubelet; systemctl status kubelet",
        explains: [NodeadmRunFailed, NodeNotRegistered],
    }
    NodeadmRunFailed { of(Register), Hard,
        "nodeadm's run phase ended with an error.",
        "on the node: journalctl -b -u rollcall-nodeadm@run -u containerd -u kubelet",
        explains: [NodeNotRegistered],
    }
    NodeNotRegistered { of(Register), Hard,
        "kubelet runs, and no Node object appears.",
        "on the node: journalctl -b -u kubelet",
    }
    NodeNameMismatch { of(Register), Hard,
        "kubelet would register under another name than the API server knows this node by, and be refused.",
        "leave EC2's private DNS name as it is: the VPC's DHCP options and --hostname-override must not change it",
        explains: [NodeNotRegistered],
    }

    CniNotReady { of(Ready), Hard,
        "The node is registered, and its network is not up: the CNI's pod has not written its configuration.",
        "kubectl -n kube-system get pods -l k8s-app=aws-node -o wide; kubectl -n kube-system logs ds/aws-node",
        explains: [NodeNotReady, GpuAllocatableShort, DevicePluginAbsent],
    }
    IpamdUnhealthy { of(Ready), Hard,
        "The VPC CNI's daemon runs on the node and does not work: pods get no addresses.",
        "kubectl -n kube-system logs ds/aws-node; on the node: curl http://127.0.0.1:61679/v1/enis, tail /var/log/aws-routed-eni/ipamd.log",
        explains: [CniNotReady, NodeNotReady],
    }
    NodeNotReady { of(Ready), Hard,
        "The node is registered, and kubelet does not call it Ready.",
        "kubectl describe node; on the node: journalctl -b -u kubelet",
        explains: [GpuAllocatableShort, DevicePluginAbsent],
    }
    DevicePluginAbsent { of(Ready), Hard,
        "Nothing offers GPUs on this node: no device plugin has registered with kubelet.",
        "kubectl -n kube-system get daemonset nvidia-device-plugin-daemonset; control up installs it unless the pool says otherwise",
    }
    GpuAllocatableShort { of(Ready), Hard,
        "The node offers fewer GPUs than NVML sees.",
        "kubectl -n kube-system logs ds/nvidia-device-plugin-daemonset",
        node: "NvidiaDeviceCountMismatch",
    }
    GpuAdvertisedTwice { of(Ready), Soft,
        "The GPUs are on offer twice, by a device plugin and by DRA: two pods can be given the same one.",
        "keep one: kubectl -n kube-system delete daemonset nvidia-device-plugin-daemonset, or remove the DRA driver; then say which in the pool's devicePlugin",
    }

    SlowdownPersists { AfterJoin, Hard,
        "Hardware has held a GPU's clocks down for four fifths of ten minutes: for heat, or because the power supply asks for it.",
        "on the node: nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER; nothing on the instance mends it: replace it: aws ec2 terminate-instances --instance-ids {instance}",
        explains: [HardwareSlowdown, ThermalSlowdown, PowerBrakeSlowdown],
    }
    NvlinkRecoveryFailed { AfterJoin, Hard,
        "An NVLink was trained anew after errors, and did not come up again.",
        "on the node: nvidia-smi nvlink -e; reboot, then replace the instance: aws ec2 terminate-instances --instance-ids {instance}",
        node: "NvidiaNVLinkError", explains: [NvlinkErrors],
    }
    HardwareSlowdown { AfterJoin, Soft,
        "Hardware holds a GPU's clocks down by half or more, and does not say for what.",
        "on the node: nvidia-smi -q -d PERFORMANCE; when it stays, the condition says SlowdownPersists",
        node: "NvidiaPowerError",
    }
    ThermalSlowdown { AfterJoin, Soft,
        "Hardware holds a GPU's clocks down by half or more, for heat.",
        "on the node: nvidia-smi -q -d TEMPERATURE,PERFORMANCE; when it stays, the condition says SlowdownPersists",
        node: "NvidiaThermalError",
    }
    PowerBrakeSlowdown { AfterJoin, Soft,
        "Hardware holds a GPU's clocks down by half or more, because the power supply asks for it.",
        "on the node: nvidia-smi -q -d POWER,PERFORMANCE; when it stays, the condition says SlowdownPersists",
        node: "NvidiaPowerError",
    }
    TemperatureNearLimit { AfterJoin, Soft,
        "A GPU is within a few degrees of the temperature at which its clocks are held down.",
        "on the node: nvidia-smi -q -d TEMPERATURE; watch DCGM_FI_DEV_GPU_TEMP of its like beside it",
        node: "NvidiaThermalError",
    }
    NvlinkErrors { AfterJoin, Soft,
        "The NVLinks of a GPU count errors faster than healthy ones do: packets are sent again, links are trained anew.",
        "on the node: nvidia-smi nvlink -e; when programs fail with XID 74 or 145 on the same GPU, replace the instance",
        node: "NvidiaNVLinkError",
    }
    PcieErrors { AfterJoin, Soft,
        "The kernel counts errors of a PCIe link of a GPU, or of what it hangs on, faster than on a healthy one.",
        "on the node: grep . /sys/bus/pci/devices/<address>/aer_dev_*; when they go on, replace the instance",
        node: "NvidiaPCIeError",
    }
    EfaErrors { AfterJoin, Soft,
        "An EFA device counts drops or failed operations faster than healthy ones do.",
        "on the node: rdma -p statistic show link <device>; compare with the peers that its programs speak to, one of them may have died",
        node: "EFAErrorMetric",
    }
    NcclCrash { AfterJoin, Soft,
        "A program has crashed within NCCL.",
        "read the program's own log with NCCL_DEBUG=WARN; the event names process and pod",
        node: "NvidiaNCCLError",
    }
    GpuProcessStuck { AfterJoin, Soft,
        "A program on a GPU has hung in the kernel, or is dead and has not been collected, for a minute.",
        "on the node: cat /proc/<pid>/wchan; the GPU's memory stays taken until it is gone: delete the pod, then reboot",
    }

    DeadlineExceeded { AnyPhase, Hard,
        "The time for the join is used up, and nothing more precise is known.",
        "on the node: rollcall-agent status; journalctl -b -u rollcall-join",
    }
    SpotInterrupted { AnyPhase, Hard,
        "EC2 takes this spot instance back within two minutes, so it is kept from registering.",
        "nothing on the node: the pool's Auto Scaling group or Karpenter replaces it; for less of it, let the pool take more instance types and zones",
        explains: [NodeNotRegistered, NodeNotReady, DeadlineExceeded, AgentSilent],
    }
    CapacityEnding { AnyPhase, Soft,
        "The capacity under this instance is about to end: EC2 recommends to move off it, or its Capacity Block is over soon.",
        "move to other capacity before it ends: aws ec2 describe-capacity-reservations --query 'CapacityReservations[].[CapacityReservationId,EndDate]'",
    }
    MaintenanceScheduled { AnyPhase, Soft,
        "EC2 has scheduled maintenance for this instance or its host.",
        "aws ec2 describe-instance-status --instance-ids {instance} --query 'InstanceStatuses[].Events[]'; replace the instance before it begins",
    }
    GateBreakerOpen { AnyPhase, Soft,
        "So many nodes of the pool failed with one reason that its gate was opened: the node has joined with that reason.",
        "look into the reason beside it: control diagnose; control up closes the breaker once no node of the pool has it",
    }
    AgentFault { AnyPhase, Hard,
        "The agent itself cannot run: five of its starts failed within two minutes.",
        "read why: aws ec2 get-console-output --instance-id {instance} --latest; then install the agent again, or roll the pool to a good image",
        explains: [AgentSilent],
    }
    AgentInstallFailed { AnyPhase, Hard,
        "The agent could not be fetched, or is not the one that the user data names.",
        "publish it again: control up uploads the tarball under its SHA-256; then replace the instance",
        explains: [AgentSilent],
    }

    NeverBooted { Outside, Hard,
        "The instance runs, and nothing of it has ever reached the console.",
        "aws ec2 describe-instance-status --instance-ids {instance}; aws ec2 get-console-output --instance-id {instance} --latest",
    }
    AgentSilent { Outside, Hard,
        "The instance boots, and no agent speaks on any channel.",
        "read the console for cloud-init's lines: aws ec2 get-console-output --instance-id {instance} --latest",
    }
    InstanceTerminated { Outside, Hard,
        "The instance is gone; its state reason says who or what ended it.",
        "control up replaces it through the pool's Auto Scaling group",
        explains: [AgentSilent, NeverBooted],
    }
    NodeGroupCreateFailed { Outside, Hard,
        "EKS gave the node group up; its health issues say why.",
        "aws eks describe-nodegroup --cluster-name {cluster} --nodegroup-name {pool} --query nodegroup.health; then control down and up of the pool",
    }
    CapacityInsufficient { Outside, Hard,
        "EC2 has no capacity for the pool's instance type in any of its zones.",
        "let the pool come up in more zones or take another instanceType, or reserve capacity; control up goes on once there is some",
        explains: [NodeGroupCreateFailed],
    }
    VcpuQuotaExceeded { Outside, Hard,
        "The account may run no more vCPUs of the pool's instance family.",
        "aws service-quotas list-service-quotas --service-code ec2 --query \"Quotas[?contains(QuotaName, 'On-Demand')].[QuotaName,QuotaCode,Value]\"; then request-service-quota-increase",
        explains: [NodeGroupCreateFailed],
    }
    SpotLimitExceeded { Outside, Hard,
        "The account may run no more spot instances of the pool's instance family.",
        "aws service-quotas list-service-quotas --service-code ec2 --query \"Quotas[?contains(QuotaName, 'Spot')].[QuotaName,QuotaCode,Value]\"; then request-service-quota-increase",
        explains: [NodeGroupCreateFailed],
    }
    ReservationExceeded { Outside, Hard,
        "The pool's capacity reservation has no room for another instance.",
        "aws ec2 describe-capacity-reservations --query 'CapacityReservations[].[CapacityReservationId,AvailableInstanceCount,State]'; enlarge it, or make the pool smaller",
        explains: [NodeGroupCreateFailed],
    }
    LaunchTemplateInvalid { Outside, Hard,
        "EC2 refuses to launch what the pool asks for: its image, network, key or volume.",
        "aws autoscaling describe-scaling-activities --auto-scaling-group-name <the node group's>: its StatusMessage says what EC2 refuses; correct the pool, then control up",
        explains: [NodeGroupCreateFailed],
    }
    AccessEntryMissing { Outside, Hard,
        "The cluster has no access entry for the role of this node.",
        "aws eks create-access-entry --cluster-name {cluster} --type EC2_LINUX --principal-arn <node role>; control up does it",
        explains: [ApiServerUnauthorized, NodeNotReady],
    }
}

impl Reason {
    /// The name on every channel.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// The heading of the reason's section in `docs/operate.md`.
    #[must_use]
    pub fn doc_anchor(self) -> String {
        self.name().to_ascii_lowercase()
    }

    /// Whether it closes the gate.
    #[must_use]
    pub fn is_hard(self) -> bool {
        self.entry().weight != Weight::Soft
    }

    /// Whether its gate stays open unless the pool asks for it to close.
    #[must_use]
    pub fn is_observed(self) -> bool {
        self.entry().weight == Weight::Observed
    }

    /// The node condition's reason, which Karpenter and EKS node auto repair match.
    #[must_use]
    pub const fn node_reason(self) -> &'static str {
        let entry = self.entry();
        if entry.node_reason.is_empty() { entry.name } else { entry.node_reason }
    }

    /// Whether `other` is a consequence of this reason, directly or through others.
    #[must_use]
    pub fn explains(self, other: Self) -> bool {
        self.entry().explains.iter().any(|next| *next == other || next.explains(other))
    }

    /// The hint with the names of the place filled in.
    #[must_use]
    pub fn hint_for(self, cluster: &str, pool: &str, instance: &str) -> String {
        self.entry()
            .hint
            .replace("{cluster}", cluster)
            .replace("{pool}", pool)
            .replace("{instance}", instance)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(name: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownReason(name.to_owned()))
    }
}

/// A name that is in no row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownReason(pub String);

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no reason `{}`", self.0)
    }
}

impl std::error::Error for UnknownReason {}

/// A reason as it travels: a name of the table, or one that a newer writer or an own check made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReasonName(Cow<'static, str>);

impl ReasonName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The row of the table, when it has one.
    #[must_use]
    pub fn known(&self) -> Option<Reason> {
        self.0.parse().ok()
    }

    /// Whether it closes the gate; a name that we do not know does, or nobody would have sent it.
    #[must_use]
    pub fn is_hard(&self) -> bool {
        self.known().is_none_or(Reason::is_hard)
    }
}

impl From<Reason> for ReasonName {
    fn from(reason: Reason) -> Self {
        Self(Cow::Borrowed(reason.name()))
    }
}

impl PartialEq<Reason> for ReasonName {
    fn eq(&self, other: &Reason) -> bool {
        self.0 == other.name()
    }
}

impl fmt::Display for ReasonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse() {
        for reason in Reason::ALL {
            assert_eq!(reason.name().parse::<Reason>(), Ok(*reason));
        }
        assert!("Nonsense".parse::<Reason>().is_err());
    }

    #[test]
    fn nothing_explains_itself() {
        for reason in Reason::ALL {
            assert!(!reason.explains(*reason), "{reason} explains itself in a circle");
        }
    }

    #[test]
    fn a_cause_is_never_later_than_what_it_explains() {
        for reason in Reason::ALL {
            for explained in reason.entry().explains {
                if let (Owner::Phase(cause), Owner::Phase(effect)) =
                    (reason.entry().owner, explained.entry().owner)
                {
                    assert!(cause <= effect, "{reason} ({cause}) explains {explained} ({effect})");
                }
            }
        }
    }

    #[test]
    fn every_row_says_what_it_means_and_what_to_do() {
        for reason in Reason::ALL {
            let entry = reason.entry();
            assert!(entry.meaning.ends_with('.') && entry.meaning.len() > 20, "{reason}");
            assert!(entry.hint.len() > 15 && !entry.hint.ends_with('.'), "{reason}");
        }
    }

    #[test]
    fn an_unknown_name_travels_unharmed() {
        let name: ReasonName = serde_json::from_str("\"SiteCheckFailed\"").unwrap();
        assert_eq!(name.known(), None);
        assert!(name.is_hard());
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"SiteCheckFailed\"");
    }

    #[test]
    fn hints_name_the_place() {
        let hint = Reason::GpuAbsent.hint_for("prod", "h100", "i-0abc");
        assert_eq!(hint, "replace the instance: aws ec2 terminate-instances --instance-ids i-0abc");
    }
}
