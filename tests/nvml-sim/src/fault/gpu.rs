//! What can be wrong with one GPU.

use std::fmt;
use std::str::FromStr;

use crate::profile::mig_devices;
use crate::state::{Banks, Gpu, GpuFault, NvlinkErrors, Process};

/// One GPU or each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one with this ordinal.
    One(u32),
    /// All of them.
    All,
}

impl Which {
    /// Whether it means the GPU with this ordinal.
    #[must_use]
    pub fn has(self, index: u32) -> bool {
        match self {
            Self::One(one) => one == index,
            Self::All => true,
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(index) => index.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Which {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// What can be wrong with a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is lost, and does not answer on the bus.
    OffBus,
    /// Every call says that it wants a reset.
    ResetRequired,
    /// No call on it comes back.
    Hang,
    /// Its texts are no UTF-8.
    Garbage,
    /// Its memory gives back other bytes than it was given.
    WrongBytes,
    /// A remapped row waits for a reset.
    RemapPending,
    /// A row could not be remapped.
    RemapFailed,
    /// A bank has no spare rows left.
    RemapExhausted,
    /// A page waits for a reset to be retired.
    RetiredPagesPending,
    /// An uncorrected memory error since the driver was loaded.
    EccUncorrectable,
    /// Errors are not corrected.
    EccOff,
    /// The driver says that the SRAM had too many errors.
    SramThreshold,
    /// Persistence mode is off.
    PersistenceOff,
    /// The `NVLink`s count errors.
    NvlinkErrors,
    /// MIG is on, without parts.
    MigOn,
    /// MIG is on, with these parts.
    MigLayout(Vec<String>),
    /// The driver asks for this: 1 reset, 2 reboot, 3 and 4 drain.
    RecoveryAction(u32),
    /// Something holds the clocks down.
    Throttle(Throttle),
    /// The link to the host has fewer lanes.
    PcieWidth(u32),
    /// The link to the host is slower.
    PcieGeneration(u32),
    /// The kernel counts errors of the link.
    Aer(AerKind),
    /// This `NVLink` is down.
    NvlinkDown(u32),
    /// The registration with the fabric is not through.
    FabricState(FabricStage),
    /// The registration has ended with this code.
    FabricError(u32),
    /// Something of the fabric's health.
    FabricHealth(FabricIllness),
    /// A program that nobody knows uses it.
    StrayProcess(u32),
    /// A program that uses it hangs in the kernel.
    StuckProcess(u32),
    /// It is as warm as it may become.
    Hot,
    /// An `NVLink` did not come up again after errors.
    NvlinkRecoveryFailed,
}

/// Enums whose variants have names, and a number for NVML.
macro_rules! named {
    ($(#[$about:meta] $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal => $number:literal,)* })*) => {$(
        #[$about]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant),*];

            const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            const fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)* }
            }

            fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.text() == text)
            }
        }
    )*};
}

named! {
    /// What holds the clocks down; its bit of the clock event reasons.
    Throttle {
        /// Idle: no fault.
        Idle = "idle" => 0x1,
        /// The power limit, as under any full load.
        SwPower = "sw-power" => 0x4,
        /// Hardware: heat or power, half speed or less.
        HwSlowdown = "hw-slowdown" => 0x8,
        /// The driver, for heat.
        SwThermal = "sw-thermal" => 0x20,
        /// Hardware, for heat.
        HwThermal = "hw-thermal" => 0x48,
        /// Hardware, because the power supply asks for it.
        PowerBrake = "power-brake" => 0x88,
    }
    /// How bad an error of the PCIe link is; its place among the kernel's counters.
    AerKind {
        /// Corrected.
        Correctable = "correctable" => 0,
        /// Uncorrected.
        Nonfatal = "nonfatal" => 1,
        /// The link is lost.
        Fatal = "fatal" => 2,
    }
    /// How far the registration with the fabric is.
    FabricStage {
        /// Nobody has begun.
        NotStarted = "not-started" => 1,
        /// Under way.
        InProgress = "in-progress" => 2,
        /// Through.
        Completed = "completed" => 3,
    }
    /// An illness of the fabric; the shift of its two bits in the health mask.
    FabricIllness {
        /// Less bandwidth than there should be.
        DegradedBandwidth = "degraded-bw" => 0,
        /// Routes are being mended.
        RouteRecovery = "route-recovery" => 2,
        /// Routes are broken.
        RouteUnhealthy = "route-unhealthy" => 4,
        /// Accesses have timed out.
        AccessTimeout = "access-timeout" => 6,
    }
}

impl Trouble {
    /// Lays it on a GPU.
    pub(super) fn apply(&self, gpu: &mut Gpu) {
        match self {
            Self::OffBus | Self::ResetRequired | Self::Hang | Self::Garbage | Self::WrongBytes => {
                self.break_it(gpu)
            }
            Self::RemapPending | Self::RemapFailed | Self::RemapExhausted => self.remap(gpu),
            Self::RetiredPagesPending
            | Self::EccUncorrectable
            | Self::EccOff
            | Self::SramThreshold => self.corrupt(gpu),
            Self::PersistenceOff => gpu.persistence = false,
            Self::NvlinkErrors | Self::NvlinkDown(_) | Self::NvlinkRecoveryFailed => self.cut(gpu),
            Self::MigOn => gpu.mig = Some(true),
            Self::MigLayout(profiles) => {
                gpu.mig = Some(true);
                gpu.mig_devices = mig_devices(gpu, profiles).unwrap_or_default();
            }
            Self::RecoveryAction(action) => gpu.recovery_action = Some(*action),
            Self::Throttle(cause) => {
                gpu.clock_event_reasons = cause.number().into();
                gpu.sm_clock_mhz.0 = gpu.sm_clock_mhz.1 / 4;
            }
            Self::PcieWidth(lanes) => gpu.pcie.width.0 = *lanes,
            Self::PcieGeneration(generation) => gpu.pcie.generation.0 = *generation,
            Self::Aer(kind) => {
                let aer = &mut gpu.pcie.aer;
                let counts = [&mut aer.correctable, &mut aer.nonfatal, &mut aer.fatal];
                *counts[kind.number() as usize] +=
                    if *kind == AerKind::Correctable { 1000 } else { 1 };
            }
            Self::FabricState(_) | Self::FabricError(_) | Self::FabricHealth(_) => {
                self.unweave(gpu);
            }
            Self::StrayProcess(pid) => gpu.processes.push(process(*pid, None)),
            Self::StuckProcess(pid) => gpu.processes.push(process(*pid, Some('D'))),
            Self::Hot => gpu.temperature_c = HOT,
        }
    }

    fn break_it(&self, gpu: &mut Gpu) {
        let fault = gpu.fault.get_or_insert_default();
        match self {
            Self::OffBus => {
                *fault = GpuFault { lost: true, ..GpuFault::default() };
                gpu.off_bus = true;
            }
            Self::ResetRequired => fault.reset_required = true,
            Self::Hang => fault.hang = true,
            Self::WrongBytes => fault.wrong_bytes = true,
            _ => fault.garbage = true,
        }
    }

    fn remap(&self, gpu: &mut Gpu) {
        let rows = gpu.remapped_rows.get_or_insert_default();
        match self {
            Self::RemapPending => {
                rows.uncorrectable += 1;
                rows.pending = true;
            }
            Self::RemapFailed => {
                rows.uncorrectable += 8;
                rows.failed = true;
            }
            _ => {
                rows.uncorrectable += 8;
                rows.banks = Some(Banks { max: 639, none: 1, ..Banks::default() });
            }
        }
    }

    fn corrupt(&self, gpu: &mut Gpu) {
        if let (Self::RetiredPagesPending, Some(pages)) = (self, &mut gpu.retired_pages) {
            pages.double_bit += 1;
            pages.pending = true;
        }
        let Some(ecc) = &mut gpu.ecc else { return };
        match self {
            Self::EccUncorrectable => {
                ecc.volatile_uncorrected += 1;
                ecc.aggregate_uncorrected += 1;
            }
            Self::EccOff => ecc.enabled = false,
            Self::SramThreshold => {
                ecc.sram.uncorrectable += 5;
                ecc.sram.threshold_exceeded = true;
            }
            _ => {}
        }
    }

    fn cut(&self, gpu: &mut Gpu) {
        let Some(nvlink) = &mut gpu.nvlink else { return };
        match self {
            Self::NvlinkRecoveryFailed => nvlink.errors.recovery_failed += 1,
            Self::NvlinkDown(link) => nvlink.down |= 1_u32.checked_shl(*link).unwrap_or_default(),
            _ => {
                nvlink.errors = NvlinkErrors {
                    crc_flit: 120,
                    crc_data: 40,
                    replay: 300,
                    recovery: 4,
                    ..nvlink.errors
                };
            }
        }
    }

    fn unweave(&self, gpu: &mut Gpu) {
        let Some(fabric) = &mut gpu.fabric else { return };
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "numbers up to 3")]
            Self::FabricState(stage) => fabric.state = stage.number() as u8,
            Self::FabricError(code) => fabric.status = *code,
            Self::FabricHealth(illness) => {
                // Two bits: 1 is ill, 2 is well.
                fabric.health_mask &= !(0b11 << illness.number());
                fabric.health_mask |= 0b01 << illness.number();
                fabric.health_summary = 2;
            }
            _ => {}
        }
    }

    /// Its name, before the GPU.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::MigLayout(_) => "mig-layout",
            Self::RecoveryAction(_) => "recovery-action",
            Self::Throttle(_) => "throttle",
            Self::PcieWidth(_) => "pcie-width",
            Self::PcieGeneration(_) => "pcie-generation",
            Self::Aer(_) => "aer",
            Self::NvlinkDown(_) => "nvlink-down",
            Self::FabricState(_) => "fabric-state",
            Self::FabricError(_) => "fabric-error",
            Self::FabricHealth(_) => "fabric-health",
            Self::StrayProcess(_) => "stray-process",
            Self::StuckProcess(_) => "stuck-process",
            plain => PLAIN.iter().find(|(_, one)| one == plain).map_or("", |(name, _)| name),
        }
    }

    /// What follows the GPU.
    pub(super) fn value(&self) -> Option<String> {
        match self {
            Self::MigLayout(profiles) => Some(profiles.join(",")),
            Self::RecoveryAction(number)
            | Self::PcieWidth(number)
            | Self::PcieGeneration(number)
            | Self::NvlinkDown(number)
            | Self::FabricError(number)
            | Self::StrayProcess(number)
            | Self::StuckProcess(number) => Some(number.to_string()),
            Self::Throttle(cause) => Some(cause.text().to_owned()),
            Self::Aer(kind) => Some(kind.text().to_owned()),
            Self::FabricState(stage) => Some(stage.text().to_owned()),
            Self::FabricHealth(illness) => Some(illness.text().to_owned()),
            _ => None,
        }
    }

    pub(super) fn parse(name: &str, value: Option<&str>) -> Option<Self> {
        let Some(value) = value else {
            return PLAIN.iter().find(|(plain, _)| *plain == name).map(|(_, one)| one.clone());
        };
        let number = || value.parse().ok();
        match name {
            "mig-layout" => {
                let profiles: Vec<String> = value.split(',').map(str::to_owned).collect();
                let known = profiles.iter().all(|name| crate::profile::is_mig_profile(name));
                known.then_some(Self::MigLayout(profiles))
            }
            "recovery-action" => number().filter(|n| (0..=4).contains(n)).map(Self::RecoveryAction),
            "throttle" => Throttle::named(value).map(Self::Throttle),
            "pcie-width" => number().map(Self::PcieWidth),
            "pcie-generation" => number().map(Self::PcieGeneration),
            "aer" => AerKind::named(value).map(Self::Aer),
            "nvlink-down" => number().map(Self::NvlinkDown),
            "fabric-state" => FabricStage::named(value).map(Self::FabricState),
            "fabric-error" => number().map(Self::FabricError),
            "fabric-health" => FabricIllness::named(value).map(Self::FabricHealth),
            "stray-process" => number().map(Self::StrayProcess),
            "stuck-process" => number().map(Self::StuckProcess),
            _ => None,
        }
    }
}

/// Where every GPU here slows down, or nearly so.
const HOT: u32 = 90;

fn process(pid: u32, state: Option<char>) -> Process {
    Process {
        pid,
        name: "python3".to_owned(),
        memory_mib: 512,
        graphics: false,
        state,
        mig_device: None,
    }
}

/// Those without a value.
const PLAIN: [(&str, Trouble); 17] = [
    ("gpu-off-bus", Trouble::OffBus),
    ("gpu-reset-required", Trouble::ResetRequired),
    ("gpu-hang", Trouble::Hang),
    ("garbage", Trouble::Garbage),
    ("wrong-bytes", Trouble::WrongBytes),
    ("row-remap-pending", Trouble::RemapPending),
    ("row-remap-failed", Trouble::RemapFailed),
    ("row-remap-exhausted", Trouble::RemapExhausted),
    ("retired-pages-pending", Trouble::RetiredPagesPending),
    ("ecc-uncorrectable", Trouble::EccUncorrectable),
    ("ecc-off", Trouble::EccOff),
    ("sram-threshold", Trouble::SramThreshold),
    ("persistence-off", Trouble::PersistenceOff),
    ("nvlink-errors", Trouble::NvlinkErrors),
    ("nvlink-recovery-failed", Trouble::NvlinkRecoveryFailed),
    ("gpu-hot", Trouble::Hot),
    ("mig-on", Trouble::MigOn),
];
