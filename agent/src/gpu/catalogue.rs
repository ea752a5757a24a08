//! The check catalogue: each thing that is looked at on a GPU node, in one table. What it is read
//! from, how bad it is, what it does at the gate and after the join, the reason it is named by, and
//! when it is clear again.
//!
//! The rows follow the evidence, the safest first. What judges them is in [`super::checks`] and, for
//! the driver's coming up, in the drivers phase; the tests hold the three together.

use contract::Reason;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The node cannot do what it was bought for.
    Fatal,
    /// It can, and somebody should know.
    Warning,
    /// Good to know.
    Info,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The gate closes.
    Block,
    /// The Node's condition is False; at the gate: said, and kept out only where the pool asks for it.
    Condition,
    /// An event on the Node; at the gate: a soft reason in the report.
    Event,
    /// A metric alone.
    Metric,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name in the catalogue: `gpu.remap_pending`.
    pub id: &'static str,
    /// What it is read from.
    pub source: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it does before the join; none: it is not looked at there.
    pub gate: Option<Action>,
    /// What it does after the join; none: it is not looked at there.
    pub after: Option<Action>,
    /// The reasons that it is named by, the usual one first; none: it is no reason, but an event or a metric.
    pub reasons: &'static [Reason],
    /// When it is clear again.
    pub clears: &'static str,
}

macro_rules! checks {
    ($($name:ident $id:literal $source:literal $severity:ident $gate:ident $after:ident
        [$($reason:ident)*] $clears:literal)*) => {
        /// One thing that is looked at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check {
            $(#[doc = concat!("`", $id, "`: ", $source, ".")] $name,)*
        }

        impl Check {
            /// Every check, in the order of the evidence.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The check's row.
            #[must_use]
            pub const fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry {
                        id: $id,
                        source: $source,
                        severity: Severity::$severity,
                        gate: action!($gate),
                        after: action!($after),
                        reasons: &[$(Reason::$reason),*],
                        clears: $clears,
                    },)*
                }
            }

            /// The check's name in one word, as an event's reason is written: `HwSlowdown`.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

macro_rules! action {
    (None) => {
        None
    };
    ($action:ident) => {
        Some(Action::$action)
    };
}

#[rustfmt::skip]
checks! {
    PciPresent      "pci.gpu_present"      "functions of vendor 10de in /sys/bus/pci/devices"        Fatal   Block Condition [GpuAbsent] "a function is there"
    PciCount        "pci.gpu_count"        "the same against what the instance type has"             Fatal   Block Condition [GpuCountShort GpuCountUnknown] "as many as expected"
    PciDead         "pci.vendor_ffff"      "the first bytes of a function's config space"            Fatal   Block Condition [GpuLost] "the config space answers"
    PcieWidth       "pci.link_width"       "current_link_width against the GPU's like on the node"   Warning Event Event     [PcieLinkDegraded] "as wide as its like"
    PcieGeneration  "pci.link_gen"         "NVML; it drops when idle, which is no fault"             Info    None  Metric    [] "never an alarm"
    PcieErrors      "pci.aer"              "aer_dev_* in sysfs and AER lines of the kernel log"      Warning None  Event     [PcieErrors] "fewer than the limit in 10 minutes"
    ModuleLoaded    "drv.module_loaded"    "/proc/driver/nvidia/version, /sys/module/nvidia/version" Fatal   Block Condition [DriverNotLoaded DriverUnitFailed DriverKernelMismatch DriverBranchMismatch] "the module is loaded"
    LibraryPresent  "drv.lib_present"      "libnvidia-ml.so.1 where libraries are, dlopen"           Fatal   Block Condition [DriverLibraryMissing] "it loads"
    VersionMatch    "drv.version_match"    "NVML's code 18; the module's version against NVML's"     Fatal   Block Condition [DriverLibraryMismatch] "both are of one version"
    DriverInit      "drv.init"             "NVML's initialisation, in a helper process"              Fatal   Block Condition [DriverInitFailed] "it initialises"
    DriverPolicy    "drv.min_version"      "the module's version against the pool's `minDriver`"     Warning Event Event     [DriverBelowPolicy] "the driver is as new as asked for"
    DriverAge       "drv.too_old"          "the module's branch against the first that knows the model" Fatal Block Condition [DriverTooOld] "the driver knows the GPUs"
    DriverHang      "drv.hang"             "an answer within 120 s before the join, 10 s after it"   Fatal   Block Condition [DriverHang] "the driver answers"
    NvmlCount       "nvml.count"           "NVML's GPUs against PCI, device nodes and what is expected" Fatal Block Condition [GpuCountShort] "as many as expected"
    NvmlHandle      "nvml.handle"          "each GPU's own answer: codes 15, 16 and others"          Fatal   Block Condition [GpuLost GpuResetRequired GpuCountShort] "the GPU answers"
    Model           "gpu.model"            "NVML's name and memory against the instance type"        Warning Event Event     [GpuModelUnexpected] "the model is the expected one"
    Persistence     "gpu.persistence"      "nvmlDeviceGetPersistenceMode"                            Warning Event Event     [PersistenceModeOff] "persistence mode is on"
    EccMode         "gpu.ecc_mode"         "nvmlDeviceGetEccMode, of GPUs with HBM"                  Warning Event Event     [EccDisabled] "ECC is on"
    EccUncorrected  "gpu.ecc_dbe_volatile" "nvmlDeviceGetTotalEccErrors, volatile and uncorrected"   Fatal   Condition Condition [EccUncorrectable] "the counter is 0 again: after a reset or a reload"
    SramThreshold   "gpu.sram_threshold"   "nvmlDeviceGetSramEccErrorStatus: the driver's own threshold" Fatal Condition Condition [SramErrorsExceeded] "never: the GPU is replaced"
    EccCorrected    "gpu.ecc_sbe_rate"     "the same, corrected"                                     Info    None  Metric    [] "never an alarm"
    RemapFailed     "gpu.remap_failure"    "nvmlDeviceGetRemappedRows"                               Fatal   Block Condition [RowRemapFailed] "never: the GPU is replaced"
    RemapPending    "gpu.remap_pending"    "nvmlDeviceGetRemappedRows"                               Fatal   Block Condition [RowRemapPending] "after a reset"
    RemapSpares     "gpu.remap_exhaust"    "nvmlDeviceGetRowRemapperHistogram: banks with few spares or none" Warning Event Event [RowRemapSparesLow] "never: the GPU is replaced"
    RetiredPages    "gpu.retired_pages_pending" "nvmlDeviceGetRetiredPagesPendingStatus, before Ampere" Fatal Block Condition [RowRemapPending] "after a reset"
    RecoveryAction  "gpu.recovery_action"  "NVML field 230: 1 reset, 2 reboot, 3 and 4 drain first"  Fatal   Block Condition [GpuResetRequired] "the driver asks for nothing"
    Xid             "gpu.xid"              "the kernel log since the boot, and NVML's events"        Fatal   Condition Condition [FatalXid] "by the class of the code"
    FabricManager   "fab.manager_unit"     "systemctl show nvidia-fabricmanager, on nodes with a fabric" Fatal Block Condition [FabricManagerNotRunning] "the unit is active"
    FabricState     "fab.state"            "nvmlDeviceGetGpuFabricInfoV: completed, and without error" Fatal Block Condition [FabricNotReady] "completed"
    FabricHealth    "fab.health_mask"      "the same: health fields of two and four bits"            Fatal   Condition Condition [FabricUnhealthy] "no field says fault"
    FabricErrors    "fab.sxid"             "SXid lines of the kernel log"                            Fatal   None  Condition [FatalXid] "after a reboot, where the line says Fatal"
    NvlinkActive    "nvl.links_active"     "nvmlDeviceGetNvLinkState of each link against the model" Fatal   Block Condition [NvlinkDown] "all links are up"
    NvlinkErrors    "nvl.errors"           "NVML fields 38, 45, 52, 59; 208, 213 from the fifth generation on" Warning None Event [NvlinkErrors] "fewer than the limit in 10 minutes"
    NvlinkRecovery  "nvl.recovery_failed"  "NVML field 214"                                          Fatal   None  Condition [NvlinkRecoveryFailed] "none in 10 minutes, or the counter begins anew"
    HwSlowdown      "thr.hw_slowdown"      "clock event reasons, bit 0x08 alone"                     Warning None  Event     [HardwareSlowdown] "the bit is gone"
    HwThermal       "thr.hw_thermal"       "clock event reasons, bit 0x40"                           Warning None  Event     [ThermalSlowdown] "the bit is gone"
    HwPowerBrake    "thr.hw_power_brake"   "clock event reasons, bit 0x80"                           Warning None  Event     [PowerBrakeSlowdown] "the bit is gone"
    SlowdownPersists "thr.sustained"       "any of the three in four fifths of 10 minutes"           Fatal   None  Condition [SlowdownPersists] "none of them for a minute"
    Temperature     "thr.temp_margin"      "temperature against the slowdown threshold, or T.Limit"  Warning None  Event     [TemperatureNearLimit] "more than 3 degrees below it"
    Gsp             "gsp.state"            "nvmlDeviceGetGspFirmwareMode; off on g4dn, g5 and g5g by the image" Info Metric Metric [] "never an alarm"
    MigLayout       "mig.layout"           "MIG mode and its devices against the configuration"      Warning Event Event     [MigLayoutMismatch] "as configured"
    EfaCount        "efa.count"            "EFA functions on PCI against /sys/class/infiniband"      Warning Event Event     [EfaCountShort] "as many as expected"
    EfaTopology     "efa.topology"         "driver branch, IOMMU groups and root ports in sysfs"     Warning Event None      [GdrTopologyUnsupported] "another driver or an IOMMU"
    Peermem         "mem.peermem"          "/proc/modules, where the configuration asks for nvidia-peermem" Warning Event Event [PeermemMissing] "it is loaded"
    EfaErrors       "efa.counters"         "hw_counters of the EFA devices"                          Warning None  Event     [EfaErrors] "fewer than the limit in 10 minutes"
    NcclSegfault    "nccl.segv"            "segfaults in libnccl in the kernel log"                  Info    None  Event     [NcclCrash] "it is past when it is said"
    StuckProcess    "proc.stuck"           "programs on a GPU in states Z and D for a minute"        Warning None  Event     [GpuProcessStuck] "they are gone, or run"
    Toolkit         "ctk.runtime"          "NVIDIA's container runtime among the programs"           Warning Event None      [ContainerToolkitMissing] "it is installed"
    Cdi             "ctk.cdi"              "/etc/cdi and /run/cdi against the disk and NVML's GPUs"  Warning Event Event     [CdiStale] "what it names is there, and all GPUs are in it"
    Canary          "canary.cuda"          "cuInit, and of each GPU: a context, a fill, copies, a comparison" Fatal Block None [CudaCanaryFailed] "every GPU computes"
    Allocatable     "k8s.allocatable"      "the Node's allocatable, or its ResourceSlices"           Fatal   None  Condition [GpuAllocatableShort DevicePluginAbsent] "as many as NVML sees"
    OnOfferTwice    "k8s.offer"            "both of them at once"                                    Warning None  Event     [GpuAdvertisedTwice] "one of them is gone"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use contract::reason::{Owner, Weight};
    use contract::{Phase, Reason};

    use super::*;

    #[test]
    fn a_reason_weighs_what_its_check_does_at_the_gate() {
        for check in Check::ALL {
            let entry = check.entry();
            let wanted = match entry.gate {
                Some(Action::Block) => Weight::Hard,
                Some(Action::Condition) => Weight::Observed,
                Some(Action::Event) => Weight::Soft,
                Some(Action::Metric) | None => continue,
            };
            let usual =
                entry.reasons.first().unwrap_or_else(|| panic!("{} has a reason", entry.id));
            assert_eq!(usual.entry().weight, wanted, "{}", entry.id);
        }
    }

    #[test]
    fn every_reason_of_the_phase_and_of_the_watch_belongs_to_a_check() {
        let named: BTreeSet<Reason> =
            Check::ALL.iter().flat_map(|check| check.entry().reasons.iter().copied()).collect();
        let owners = [Owner::Phase(Phase::Drivers), Owner::AfterJoin];
        let of_gpus = Reason::ALL.iter().filter(|r| owners.contains(&r.entry().owner));
        let missing: Vec<_> = of_gpus.filter(|reason| !named.contains(reason)).collect();
        assert_eq!(missing, Vec::<&Reason>::new());
    }

    #[test]
    fn what_follows_fits_how_bad_it_is() {
        let ids: BTreeSet<_> = Check::ALL.iter().map(|check| check.entry().id).collect();
        assert_eq!(ids.len(), Check::ALL.len());
        for check in Check::ALL {
            let entry = check.entry();
            assert!(entry.gate.is_some() || entry.after.is_some(), "{} does nothing", entry.id);
            let acts = [entry.gate, entry.after].into_iter().flatten();
            let takes_out = |action| matches!(action, Action::Block | Action::Condition);
            let is_fatal = entry.severity == Severity::Fatal;
            assert!(acts.into_iter().all(|action| takes_out(action) == is_fatal), "{}", entry.id);
        }
    }
}
