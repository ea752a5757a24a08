//! NVML itself. Only the helper process comes here: every call may hang.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use nvml_wrapper::bitmasks::InitFlags;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};
use nvml_wrapper::struct_wrappers::event::EventData;
use nvml_wrapper::{Device, Nvml};

use super::sample::{
    Activity, CallError, Driver, Ecc, Fabric, Failure, GpuSample, Memory, NvlinkErrors, Nvlinks,
    Readings, RemappedRows, RemapperBanks,
};
use super::{library, pci};
use crate::host::Root;

/// Field `NVML_FI_DEV_MEMORY_TEMP`.
const MEMORY_TEMPERATURE: u32 = 82;
/// Fields `NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX` and `_RX`, in KiB.
const NVLINK_KIB: (u32, u32) = (138, 139);
/// Fields of errors over all NVLinks up to the fourth generation: `NVML_FI_DEV_NVLINK_*_ERROR_COUNT_TOTAL`
/// of flow control and data checksums, replays and recoveries.
const NVLINK_ERRORS: [u32; 4] = [38, 45, 52, 59];
/// The same of the fifth: `NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS`, `…_LINK_RECOVERY_SUCCESSFUL_EVENTS` and
/// `…_LINK_RECOVERY_FAILED_EVENTS`.
const NVLINK5_ERRORS: [u32; 3] = [208, 213, 214];
/// Field `NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT`: the margin at which hardware slows down.
const SLOWDOWN_LIMIT: u32 = 194;
/// Field `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
const RECOVERY_ACTION: u32 = 230;
/// The most NVLinks that a GPU has, `NVML_NVLINK_MAX_LINKS`.
const NVLINKS_MAX: u32 = 18;
const MIB: f64 = 1024.0 * 1024.0;

/// Loads and initialises the library of `root`.
///
/// # Errors
/// It is not there, cannot be loaded, or does not initialise.
pub fn open(root: &Root) -> Result<(Nvml, Driver), Failure> {
    let Some(path) = library::to_load(root) else {
        return Err(Failure::LibraryMissing { searched: library::searched() });
    };
    let name = root.seen_from_inside(Path::new(&path)).display().to_string();
    let nvml = initialize(&path).map_err(|error| match error {
        NvmlError::LibloadingError(error) => {
            Failure::LibraryUnloadable { library: name.clone(), error: error.to_string() }
        }
        error => Failure::Init { library: name.clone(), error: call_error("nvmlInit", error) },
    })?;
    let driver = describe(&nvml, name)?;
    Ok((nvml, driver))
}

/// Without these flags one bad GPU, or none at all, fails the initialisation for all.
fn initialize(path: &OsStr) -> Result<Nvml, NvmlError> {
    let flags = InitFlags::NO_GPUS | InitFlags::NO_ATTACH;
    match Nvml::builder().lib_path(path).flags(flags).init() {
        // A library from before the flags.
        Err(NvmlError::FailedToLoadSymbol(_)) => Nvml::builder().lib_path(path).init(),
        other => other,
    }
}

fn describe(nvml: &Nvml, library: String) -> Result<Driver, Failure> {
    let failed = |call: &str, error| Failure::Init {
        library: library.clone(),
        error: call_error(call, error),
    };
    let version =
        nvml.sys_driver_version().map_err(|error| failed("nvmlSystemGetDriverVersion", error))?;
    let count = nvml.device_count().map_err(|error| failed("nvmlDeviceGetCount_v2", error))?;
    let cuda = nvml.sys_cuda_driver_version().ok();
    let cuda = cuda.map(|v| format!("{}.{}", v / 1000, v % 1000 / 10)).unwrap_or_default();
    Ok(Driver { library, version, cuda, count })
}

fn call_error(call: &str, error: NvmlError) -> CallError {
    let text = error.to_string();
    CallError { call: call.to_owned(), code: u32::from(error), text }
}

/// Samples GPUs, and keeps of each the GPM sample that the next one is measured against.
#[derive(Debug)]
pub struct Sampler<'nvml> {
    nvml: &'nvml Nvml,
    previous: HashMap<String, GpmSample<'nvml>>,
}

impl<'nvml> Sampler<'nvml> {
    /// A sampler that has not sampled yet.
    #[must_use]
    pub fn new(nvml: &'nvml Nvml) -> Self {
        Self { nvml, previous: HashMap::new() }
    }

    /// Asks the GPU with this index for everything.
    pub fn sample(&mut self, index: u32) -> GpuSample {
        let mut sample = GpuSample { index, ..GpuSample::default() };
        let device = match self.nvml.device_by_index(index) {
            Ok(device) => device,
            Err(error) => {
                sample.error = Some(call_error("nvmlDeviceGetHandleByIndex_v2", error));
                return sample;
            }
        };
        let mut asked = Asked::default();
        identify(&device, &mut asked, &mut sample);
        sample.readings = readings(&device, &mut asked);
        // A GPU that gave an error is not asked further: it may take its time to fail again.
        if asked.error.is_none() {
            sample.readings.activity = self.activity(&device, &sample.uuid);
        }
        sample.error = asked.error;
        sample
    }

    fn activity(&mut self, device: &Device<'nvml>, uuid: &str) -> Option<Activity> {
        if !device.gpm_support().ok()? {
            return None;
        }
        let now = device.gpm_sample().ok()?;
        let activity = self.previous.get(uuid).and_then(|then| measure(self.nvml, then, &now));
        self.previous.insert(uuid.to_owned(), now);
        activity
    }
}

/// Hears of the XIDs that NVML tells of.
#[derive(Debug)]
pub struct Listener<'nvml> {
    nvml: &'nvml Nvml,
    set: Option<EventSet<'nvml>>,
    gpus: Vec<(u32, String)>,
}

impl<'nvml> Listener<'nvml> {
    /// A listener that does not listen yet.
    #[must_use]
    pub const fn new(nvml: &'nvml Nvml) -> Self {
        Self { nvml, set: None, gpus: Vec::new() }
    }

    /// Listens to these GPUs, by index and address, and no others. One that was away has to be listened
    /// to anew. Whether NVML tells of XIDs.
    pub fn listen_to(&mut self, gpus: Vec<(u32, String)>) -> bool {
        if gpus != self.gpus || self.set.is_none() {
            // The old set first: a GPU is in one set at a time.
            self.set = None;
            self.set = self.register(&gpus);
            self.gpus = gpus;
        }
        self.is_listening()
    }

    fn register(&self, gpus: &[(u32, String)]) -> Option<EventSet<'nvml>> {
        let mut set = self.nvml.create_event_set().ok()?;
        for (index, _) in gpus {
            let device = self.nvml.device_by_index(*index).ok()?;
            set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok()?;
        }
        (!gpus.is_empty()).then_some(set)
    }

    /// Whether there is something to wait for.
    #[must_use]
    pub const fn is_listening(&self) -> bool {
        self.set.is_some()
    }

    /// Waits for an XID: the GPU's address, and the code.
    pub fn wait(&mut self, limit: Duration) -> Option<(String, u32)> {
        let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        match self.set.as_ref()?.wait(milliseconds) {
            Ok(event) => told(&event),
            Err(NvmlError::Timeout) => None,
            Err(_) => {
                // A set that fails, as with a lost GPU, fails at once and for ever.
                self.set = None;
                None
            }
        }
    }
}

fn told(event: &EventData<'_>) -> Option<(String, u32)> {
    let Some(XidError::Value(code)) = event.event_data else { return None };
    let pci = event.device.pci_info().ok()?;
    Some((pci::normalize(&pci.bus_id), u32::try_from(code).ok()?))
}

/// Collects the first real error of a GPU's calls.
#[derive(Default)]
struct Asked {
    error: Option<CallError>,
}

impl Asked {
    fn take<T>(&mut self, call: &str, answer: Result<T, NvmlError>) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(error) => {
                if is_fault(&error) && self.error.is_none() {
                    self.error = Some(call_error(call, error));
                }
                None
            }
        }
    }
}

/// Whether an error says that the GPU is ill, and not that it or its driver lacks a feature.
const fn is_fault(error: &NvmlError) -> bool {
    !matches!(
        error,
        NvmlError::NotSupported
            | NvmlError::NoPermission
            | NvmlError::NotFound
            | NvmlError::NoData
            | NvmlError::InvalidArg
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::Utf8Error(_)
            | NvmlError::IncorrectBits(_)
            | NvmlError::UnexpectedVariant(_)
    )
}

fn identify(device: &Device<'_>, asked: &mut Asked, sample: &mut GpuSample) {
    sample.uuid = asked.take("nvmlDeviceGetUUID", device.uuid()).unwrap_or_default();
    sample.pci = asked
        .take("nvmlDeviceGetPciInfo_v3", device.pci_info())
        .map(|info| pci::normalize(&info.bus_id))
        .unwrap_or_default();
    sample.name = asked.take("nvmlDeviceGetName", device.name()).unwrap_or_default();
    sample.serial = asked.take("nvmlDeviceGetSerial", device.serial()).unwrap_or_default();
    sample.minor = asked.take("nvmlDeviceGetMinorNumber", device.minor_number());
}

fn readings(device: &Device<'_>, asked: &mut Asked) -> Readings {
    let utilization = asked.take("nvmlDeviceGetUtilizationRates", device.utilization_rates());
    let ecc_mode = asked.take("nvmlDeviceGetEccMode", device.is_ecc_enabled());
    let ecc_mode = ecc_mode.map(|mode| mode.currently_enabled);
    let mig = device.mig_mode().ok().map(|mode| mode.current == 1);
    Readings {
        sm_clock: asked.take("nvmlDeviceGetClockInfo", device.clock_info(Clock::SM)),
        memory_clock: asked.take("nvmlDeviceGetClockInfo", device.clock_info(Clock::Memory)),
        temperature: asked
            .take("nvmlDeviceGetTemperature", device.temperature(TemperatureSensor::Gpu)),
        memory_temperature: field(device, MEMORY_TEMPERATURE),
        power: asked.take("nvmlDeviceGetPowerUsage", device.power_usage()),
        energy: asked
            .take("nvmlDeviceGetTotalEnergyConsumption", device.total_energy_consumption()),
        pcie_replays: asked.take("nvmlDeviceGetPcieReplayCounter", device.pcie_replay_counter()),
        pcie_generation: device.current_pcie_link_gen().ok(),
        pcie_width: device.current_pcie_link_width().ok(),
        pcie_width_max: device.max_pcie_link_width().ok(),
        gpu_utilization: utilization.as_ref().map(|busy| busy.gpu),
        memory_utilization: utilization.as_ref().map(|busy| busy.memory),
        encoder_utilization: device.encoder_utilization().ok().map(|busy| busy.utilization),
        decoder_utilization: device.decoder_utilization().ok().map(|busy| busy.utilization),
        memory: asked.take("nvmlDeviceGetMemoryInfo_v2", device.memory_info()).map(|memory| {
            Memory {
                total: memory.total,
                free: memory.free,
                used: memory.used,
                reserved: memory.reserved,
            }
        }),
        nvlink_kib: nvlink(device),
        remapped_rows: remapped_rows(device),
        remapper_banks: remapper_banks(device),
        retired_pages_pending: device.are_pages_pending_retired().ok(),
        ecc_mode,
        ecc: (ecc_mode == Some(true)).then(|| ecc(device)),
        sram_exceeded: nvml_ext::sram_errors(device).ok().map(|sram| sram.threshold_exceeded),
        clock_event_reasons: device.current_throttle_reasons().ok().map(|mask| mask.bits()),
        slowdown_margin: slowdown_margin(device),
        processes: processes(device),
        recovery_action: field(device, RECOVERY_ACTION),
        persistence: device.is_in_persistent_mode().ok(),
        mig,
        mig_devices: if mig == Some(true) { mig_devices(device) } else { None },
        gsp: device.gsp_firmware_mode().ok().map(|mode| mode.enabled),
        nvlinks: nvlinks(device),
        nvlink_errors: nvlink_errors(device),
        fabric: fabric(device),
        activity: None,
    }
}

fn field(device: &Device<'_>, id: u32) -> Option<u64> {
    let mut values = nvml_ext::field_values(device, &[(id, 0)]).ok()?;
    values.pop()?.ok()?.as_u64()
}

fn nvlink(device: &Device<'_>) -> Option<(u64, u64)> {
    let all = |id| (id, nvml_ext::ALL_LINKS);
    let values = nvml_ext::field_values(device, &[all(NVLINK_KIB.0), all(NVLINK_KIB.1)]).ok()?;
    let [Ok(sent), Ok(received)] = values.as_slice() else { return None };
    Some((sent.as_u64()?, received.as_u64()?))
}

fn remapped_rows(device: &Device<'_>) -> Option<RemappedRows> {
    let rows = nvml_ext::remapped_rows(device).ok()?;
    Some(RemappedRows {
        correctable: rows.correctable,
        uncorrectable: rows.uncorrectable,
        pending: rows.pending,
        failed: rows.failed,
    })
}

fn remapper_banks(device: &Device<'_>) -> Option<RemapperBanks> {
    let nvml_ext::RemapperBanks { max, high, partial, low, none } =
        nvml_ext::row_remapper_histogram(device).ok()?;
    Some(RemapperBanks { max, high, partial, low, none })
}

/// Every link that there is; none on a GPU without.
fn nvlinks(device: &Device<'_>) -> Option<Nvlinks> {
    let mut links = Nvlinks::default();
    for number in 0..NVLINKS_MAX {
        match device.link_wrapper_for(number).is_active() {
            Ok(true) => links.up += 1,
            Ok(false) => links.down.push(number),
            Err(_) => break,
        }
    }
    (links != Nvlinks::default()).then_some(links)
}

/// Whichever of the two generations the GPU counts.
fn nvlink_errors(device: &Device<'_>) -> Option<NvlinkErrors> {
    let wanted: Vec<(u32, u32)> = NVLINK_ERRORS
        .iter()
        .map(|id| (*id, 0))
        .chain(NVLINK5_ERRORS.iter().map(|id| (*id, nvml_ext::ALL_LINKS)))
        .collect();
    let values = nvml_ext::field_values(device, &wanted).ok()?;
    let value = |at: usize| values.get(at)?.as_ref().ok()?.as_u64();
    let errors = NvlinkErrors {
        crc_flit: value(0).or_else(|| value(4)),
        crc_data: value(1),
        replays: value(2),
        recoveries: value(3).or_else(|| value(5)),
        failed_recoveries: value(6),
    };
    (errors != NvlinkErrors::default()).then_some(errors)
}

/// From Hopper on the driver says how far it is to the limit; before, the limit is a temperature.
fn slowdown_margin(device: &Device<'_>) -> Option<i64> {
    if let Ok(margin) = nvml_ext::margin_temperature(device) {
        let slowdown = nvml_ext::field_values(device, &[(SLOWDOWN_LIMIT, 0)]).ok()?;
        return Some(i64::from(margin) - slowdown.first()?.as_ref().ok()?.as_i64()?);
    }
    let limit = device.temperature_threshold(TemperatureThreshold::Slowdown).ok()?;
    let now = device.temperature(TemperatureSensor::Gpu).ok()?;
    Some(i64::from(limit) - i64::from(now))
}

fn processes(device: &Device<'_>) -> Vec<u32> {
    let lists = [device.running_compute_processes(), device.running_graphics_processes()];
    let mut pids: Vec<u32> =
        lists.into_iter().flatten().flatten().map(|process| process.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn mig_devices(device: &Device<'_>) -> Option<u32> {
    let most = device.mig_device_count().ok()?;
    let there = (0..most).filter(|index| device.mig_device_by_index(*index).is_ok()).count();
    u32::try_from(there).ok()
}

fn ecc(device: &Device<'_>) -> Ecc {
    let count = |kind, counter| device.total_ecc_errors(kind, counter).ok();
    Ecc {
        volatile_corrected: count(MemoryError::Corrected, EccCounter::Volatile),
        volatile_uncorrected: count(MemoryError::Uncorrected, EccCounter::Volatile),
        aggregate_corrected: count(MemoryError::Corrected, EccCounter::Aggregate),
        aggregate_uncorrected: count(MemoryError::Uncorrected, EccCounter::Aggregate),
    }
}

fn fabric(device: &Device<'_>) -> Option<Fabric> {
    let info = nvml_ext::fabric_info(device).ok()?;
    Some(Fabric { state: info.state.number(), error: info.error, health_mask: info.health_mask })
}

fn measure(nvml: &Nvml, then: &GpmSample<'_>, now: &GpmSample<'_>) -> Option<Activity> {
    const WANTED: [GpmMetricId; 12] = [
        GpmMetricId::GraphicsUtil,
        GpmMetricId::SmUtil,
        GpmMetricId::SmOccupancy,
        GpmMetricId::AnyTensorUtil,
        GpmMetricId::DramBwUtil,
        GpmMetricId::Fp64Util,
        GpmMetricId::Fp32Util,
        GpmMetricId::Fp16Util,
        GpmMetricId::PcieTxPerSec,
        GpmMetricId::PcieRxPerSec,
        GpmMetricId::NvlinkTotalTxPerSec,
        GpmMetricId::NvlinkTotalRxPerSec,
    ];
    let values = gpm_metrics_get(nvml, then, now, &WANTED).ok()?;
    let value = |index: usize| values.get(index)?.as_ref().ok().map(|metric| metric.value);
    let ratio = |index| value(index).map(|percent| percent / 100.0);
    let bytes = |index| value(index).map(|mib| mib * MIB);
    Some(Activity {
        graphics: ratio(0),
        sm: ratio(1),
        sm_occupancy: ratio(2),
        tensor: ratio(3),
        dram: ratio(4),
        fp64: ratio(5),
        fp32: ratio(6),
        fp16: ratio(7),
        pcie_sent: bytes(8),
        pcie_received: bytes(9),
        nvlink_sent: bytes(10),
        nvlink_received: bytes(11),
    })
}
