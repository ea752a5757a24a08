//! What one device says of itself.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;
use sys::{
    nvmlBAR1Memory_t, nvmlDevice_t, nvmlEnableState_t, nvmlGpuFabricInfoV_t, nvmlMemory_t,
    nvmlMemory_v2_t, nvmlPciInfo_t, nvmlReturn_t, nvmlUtilization_t,
};

use super::{fill, put, put_pair, put_text};
use crate::session::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, on_device, since_boot, sway};
use crate::state::{Ecc, Gpu, State};

const MIB: u64 = 1024 * 1024;
/// `NVML_STRUCT_VERSION(Memory, 2)`, which callers must pass in.
#[expect(clippy::cast_possible_truncation, reason = "the size of a small structure")]
const MEMORY_V2: c_uint = size_of::<nvmlMemory_v2_t>() as c_uint | (2 << 24);

/// Functions that give one value of a device.
macro_rules! getters {
    ($($name:ident -> $out:ty = |$gpu:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(device: nvmlDevice_t, out: *mut $out) -> nvmlReturn_t {
            let answer = on_device(stringify!($name), device, |$gpu, _| $answer);
            // SAFETY: the caller passes a pointer to the type that nvml.h demands.
            unsafe { put(out, answer) }
        }
    )*};
}

getters! {
    nvmlDeviceGetMinorNumber -> c_uint = |gpu| Ok(gpu.minor);
    nvmlDeviceGetPowerUsage -> c_uint = |gpu| Ok(power_mw(gpu));
    nvmlDeviceGetEnforcedPowerLimit -> c_uint = |gpu| Ok(gpu.power_limit_mw);
    nvmlDeviceGetPowerManagementLimit -> c_uint = |gpu| Ok(gpu.power_limit_mw);
    nvmlDeviceGetTotalEnergyConsumption -> c_ulonglong = |gpu| Ok(energy_mj(gpu));
    nvmlDeviceGetUtilizationRates -> nvmlUtilization_t = |gpu| Ok(nvmlUtilization_t {
        gpu: busy(gpu.utilization.gpu),
        memory: busy(gpu.utilization.memory),
    });
    nvmlDeviceGetCurrPcieLinkGeneration -> c_uint = |gpu| Ok(gpu.pcie.generation.0);
    nvmlDeviceGetMaxPcieLinkGeneration -> c_uint = |gpu| Ok(gpu.pcie.generation.1);
    nvmlDeviceGetCurrPcieLinkWidth -> c_uint = |gpu| Ok(gpu.pcie.width.0);
    nvmlDeviceGetMaxPcieLinkWidth -> c_uint = |gpu| Ok(gpu.pcie.width.1);
    nvmlDeviceGetPcieReplayCounter -> c_uint = |gpu| Ok(gpu.pcie.replays);
    nvmlDeviceGetPersistenceMode -> nvmlEnableState_t = |gpu| Ok(enabled(gpu.persistence));
    nvmlDeviceGetCurrentClocksThrottleReasons -> c_ulonglong = |gpu| Ok(gpu.clock_event_reasons);
    nvmlDeviceGetCurrentClocksEventReasons -> c_ulonglong = |gpu| Ok(gpu.clock_event_reasons);
    nvmlDeviceGetSupportedClocksThrottleReasons -> c_ulonglong = |_| Ok(0x1ff);
    nvmlDeviceGetArchitecture -> c_uint = |gpu| Ok(gpu.architecture);
    nvmlDeviceGetModuleId -> c_uint = |gpu| gpu.module_id.ok_or(NOT_SUPPORTED);
    nvmlDeviceGetBAR1MemoryInfo -> nvmlBAR1Memory_t = |gpu| Ok(nvmlBAR1Memory_t {
        bar1Total: gpu.memory_mib.next_power_of_two() * MIB,
        bar1Free: (gpu.memory_mib.next_power_of_two() - 2) * MIB,
        bar1Used: 2 * MIB,
    });
    nvmlDeviceGetMemoryInfo -> nvmlMemory_t = |gpu| Ok(nvmlMemory_t {
        total: gpu.memory_mib * MIB,
        free: free_mib(gpu) * MIB,
        // The first version counts what is reserved as used.
        used: (gpu.memory_used_mib + gpu.memory_reserved_mib) * MIB,
    });
    nvmlDeviceGetRetiredPagesPendingStatus -> nvmlEnableState_t = |_| Ok(enabled(false));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetIndex(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    let index = on_device("nvmlDeviceGetIndex", device, |gpu, state| Ok(position(gpu, state)));
    // SAFETY: the caller passes a pointer to an unsigned int, as nvml.h demands.
    unsafe { put(out, index) }
}

/// NVML numbers the devices that are there, so a missing one moves the later ones up.
fn position(gpu: &Gpu, state: &State) -> c_uint {
    let position = state.gpus.iter().position(|other| other.uuid == gpu.uuid);
    position.and_then(|position| c_uint::try_from(position).ok()).unwrap_or(c_uint::MAX)
}

/// Functions that give a text of a device.
macro_rules! texts {
    ($($name:ident = |$gpu:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            out: *mut c_char,
            length: c_uint,
        ) -> nvmlReturn_t {
            let answer = on_device(stringify!($name), device, |$gpu, _| $answer);
            // SAFETY: the caller passes a buffer of `length` bytes, as nvml.h demands.
            unsafe { put_text(out, length, answer) }
        }
    )*};
}

texts! {
    nvmlDeviceGetName = |gpu| Ok(gpu.name.clone());
    nvmlDeviceGetUUID = |gpu| Ok(gpu.uuid.clone());
    nvmlDeviceGetSerial = |gpu| Ok(gpu.serial.clone());
    nvmlDeviceGetVbiosVersion = |_| Ok("96.00.99.00.01".to_owned());
}

/// Functions that give two values of a device.
macro_rules! pairs {
    ($($name:ident -> ($a:ty, $b:ty) = |$gpu:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            first: *mut $a,
            second: *mut $b,
        ) -> nvmlReturn_t {
            let answer = on_device(stringify!($name), device, |$gpu, _| $answer);
            // SAFETY: the caller passes pointers to the types that nvml.h demands.
            unsafe { put_pair(first, second, answer) }
        }
    )*};
}

pairs! {
    nvmlDeviceGetEncoderUtilization -> (c_uint, c_uint) =
        |gpu| Ok((busy(gpu.utilization.encoder), 1_000_000));
    nvmlDeviceGetDecoderUtilization -> (c_uint, c_uint) =
        |gpu| Ok((busy(gpu.utilization.decoder), 1_000_000));
    nvmlDeviceGetEccMode -> (nvmlEnableState_t, nvmlEnableState_t) = |gpu| {
        let mode = enabled(gpu.ecc.ok_or(NOT_SUPPORTED)?.enabled);
        Ok((mode, mode))
    };
    nvmlDeviceGetMigMode -> (c_uint, c_uint) = |gpu| {
        let mode = c_uint::from(gpu.mig.ok_or(NOT_SUPPORTED)?);
        Ok((mode, mode))
    };
    nvmlDeviceGetCudaComputeCapability -> (c_int, c_int) = |gpu| Ok(gpu.compute_capability);
}

/// Functions that give one value for one choice.
macro_rules! choices {
    ($($name:ident($choice:ty) -> $out:ty = |$gpu:pat_param, $chosen:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            chosen: $choice,
            out: *mut $out,
        ) -> nvmlReturn_t {
            let answer = on_device(stringify!($name), device, |$gpu, _| {
                let $chosen = chosen;
                $answer
            });
            // SAFETY: the caller passes a pointer to the type that nvml.h demands.
            unsafe { put(out, answer) }
        }
    )*};
}

choices! {
    nvmlDeviceGetTemperature(c_uint) -> c_uint = |gpu, sensor| match sensor {
        sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU => Ok(gpu.temperature_c),
        _ => Err(INVALID_ARGUMENT),
    };
    nvmlDeviceGetTemperatureThreshold(c_uint) -> c_uint = |_, threshold| match threshold {
        // Shutdown, slowdown, maximum memory and maximum GPU temperature.
        0 => Ok(92),
        1 => Ok(89),
        2 => Ok(95),
        3 => Ok(87),
        _ => Err(NOT_SUPPORTED),
    };
    nvmlDeviceGetClockInfo(c_uint) -> c_uint = |gpu, clock| clocks(gpu, clock).map(|pair| pair.0);
    nvmlDeviceGetMaxClockInfo(c_uint) -> c_uint =
        |gpu, clock| clocks(gpu, clock).map(|pair| pair.1);
    nvmlDeviceGetNvLinkState(c_uint) -> nvmlEnableState_t = |gpu, link| {
        let nvlink = gpu.nvlink.ok_or(NOT_SUPPORTED)?;
        if link >= nvlink.links {
            return Err(INVALID_ARGUMENT);
        }
        Ok(enabled(nvlink.down & (1 << link) == 0))
    };
}

fn clocks(gpu: &Gpu, clock: c_uint) -> Result<(c_uint, c_uint), nvmlReturn_t> {
    match clock {
        sys::nvmlClockType_enum_NVML_CLOCK_GRAPHICS | sys::nvmlClockType_enum_NVML_CLOCK_SM => {
            Ok(gpu.sm_clock_mhz)
        }
        sys::nvmlClockType_enum_NVML_CLOCK_MEM => Ok(gpu.memory_clock_mhz),
        sys::nvmlClockType_enum_NVML_CLOCK_VIDEO => {
            Ok((gpu.sm_clock_mhz.0 * 9 / 10, gpu.sm_clock_mhz.1 * 9 / 10))
        }
        _ => Err(INVALID_ARGUMENT),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    out: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller passes a structure whose version field it has set.
    let version = unsafe { (*out).version };
    if version != MEMORY_V2 {
        return sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    let answer = on_device("nvmlDeviceGetMemoryInfo_v2", device, |gpu, _| {
        Ok(nvmlMemory_v2_t {
            version,
            total: gpu.memory_mib * MIB,
            reserved: gpu.memory_reserved_mib * MIB,
            free: free_mib(gpu) * MIB,
            used: gpu.memory_used_mib * MIB,
        })
    });
    // SAFETY: the caller passes a pointer to that structure, as nvml.h demands.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(
    device: nvmlDevice_t,
    out: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetPciInfo_v3", device, |gpu, _| pci_info(gpu));
    // SAFETY: the caller passes a pointer to that structure, as nvml.h demands.
    unsafe { put(out, answer) }
}

fn pci_info(gpu: &Gpu) -> Result<nvmlPciInfo_t, nvmlReturn_t> {
    let unknown = sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN;
    let number = |text: &str| c_uint::from_str_radix(text, 16).map_err(|_| unknown);
    let parts: Vec<&str> = gpu.pci.split([':', '.']).collect();
    let [domain, bus, slot, _] = parts.as_slice() else { return Err(unknown) };
    let mut info = nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain: number(domain)?,
        bus: number(bus)?,
        device: number(slot)?,
        pciDeviceId: gpu.pci_device_id,
        pciSubSystemId: 0x16c1_10de,
        busId: [0; 32],
    };
    fill(&mut info.busIdLegacy, &gpu.pci.to_ascii_uppercase());
    fill(&mut info.busId, &format!("0000{}", gpu.pci.to_ascii_uppercase()));
    Ok(info)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetTotalEccErrors", device, |gpu, _| {
        ecc_count(gpu.ecc.ok_or(NOT_SUPPORTED)?, kind, counter)
    });
    // SAFETY: the caller passes a pointer to an unsigned long long, as nvml.h demands.
    unsafe { put(out, answer) }
}

fn ecc_count(ecc: Ecc, kind: c_uint, counter: c_uint) -> Result<u64, nvmlReturn_t> {
    match (ecc.enabled, kind, counter) {
        (false, ..) => Err(NOT_SUPPORTED),
        (true, 0, 0) => Ok(ecc.volatile_corrected),
        (true, 1, 0) => Ok(ecc.volatile_uncorrected),
        (true, 0, 1) => Ok(ecc.aggregate_corrected),
        (true, 1, 1) => Ok(ecc.aggregate_uncorrected),
        _ => Err(INVALID_ARGUMENT),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetRemappedRows", device, |gpu, _| {
        gpu.remapped_rows.ok_or(NOT_SUPPORTED)
    });
    let (rows, code) = match answer {
        Ok(rows) => (rows, SUCCESS),
        Err(code) => return code,
    };
    // SAFETY: the caller passes four pointers to unsigned ints, as nvml.h demands.
    let codes = unsafe {
        [
            put(correctable, Ok(rows.correctable)),
            put(uncorrectable, Ok(rows.uncorrectable)),
            put(pending, Ok(c_uint::from(rows.pending))),
            put(failed, Ok(c_uint::from(rows.failed))),
        ]
    };
    codes.into_iter().find(|code| *code != SUCCESS).unwrap_or(code)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    out: *mut nvmlGpuFabricInfoV_t,
) -> nvmlReturn_t {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and every version of the structure begins with the version that its caller set.
    let version = unsafe { out.cast::<c_uint>().read() };
    #[expect(clippy::cast_possible_truncation, reason = "the size of a small structure")]
    let third = size_of::<nvmlGpuFabricInfoV_t>() as c_uint | (3 << 24);
    if version != third {
        return sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    let answer = on_device("nvmlDeviceGetGpuFabricInfoV", device, |gpu, _| {
        let fabric = gpu.fabric.ok_or(NOT_SUPPORTED)?;
        Ok(nvmlGpuFabricInfoV_t {
            version,
            clusterUuid: [0; 16],
            status: fabric.status,
            cliqueId: fabric.clique_id,
            state: fabric.state,
            healthMask: fabric.health_mask,
            healthSummary: fabric.health_summary,
        })
    });
    // SAFETY: the version says that the caller's structure is this one.
    unsafe { put(out, answer) }
}

fn enabled(on: bool) -> nvmlEnableState_t {
    nvmlEnableState_t::from(on)
}

fn free_mib(gpu: &Gpu) -> u64 {
    gpu.memory_mib.saturating_sub(gpu.memory_used_mib + gpu.memory_reserved_mib)
}

/// A busy unit sways by a few percent; an idle one does not.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to a percentage"
)]
pub(super) fn busy(percent: u32) -> u32 {
    if percent == 0 { 0 } else { (f64::from(percent) + 3.0 * sway()).clamp(1.0, 100.0) as u32 }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a power below a MW")]
pub(super) fn power_mw(gpu: &Gpu) -> u32 {
    (f64::from(gpu.power_mw) * (1.0 + 0.01 * sway())).max(0.0) as u32
}

pub(super) fn energy_mj(gpu: &Gpu) -> u64 {
    let milliseconds = u64::try_from(since_boot().as_millis()).unwrap_or(u64::MAX);
    gpu.energy_mj + u64::from(gpu.power_mw) * milliseconds / 1000
}
