//! What one device says of itself: what it is, how busy, how warm, how fast.

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;
use sys::{nvmlDevice_t, nvmlEnableState_t, nvmlReturn_t, nvmlUtilization_t};

use super::shapes::{choices, getters, pairs, texts, versioned};
use super::{put, put_list, put_text};
use crate::session::{
    INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, Target, on_device, on_target, since_boot, sway,
};
use crate::state::{Gpu, State};

/// Every clock event reason but the display's.
const CLOCK_EVENT_REASONS: c_ulonglong = 0x1ff & !0x100;
/// Temperatures at which the GPU slows down and stops.
const SLOWDOWN: c_uint = 89;
const SHUTDOWN: c_uint = 92;
/// The warmest that a healthy GPU gets.
const GPU_MAX: c_uint = 87;
const MEMORY_MAX: c_uint = 95;
const HOPPER: c_uint = 9;

getters! {
    nvmlDeviceGetMinorNumber -> c_uint = |gpu| Ok(gpu.minor);
    nvmlDeviceGetPowerUsage -> c_uint = |gpu| Ok(power_mw(gpu));
    nvmlDeviceGetEnforcedPowerLimit -> c_uint = |gpu| Ok(gpu.power_limit_mw);
    nvmlDeviceGetPowerManagementLimit -> c_uint = |gpu| Ok(gpu.power_limit_mw);
    nvmlDeviceGetPowerManagementDefaultLimit -> c_uint = |gpu| Ok(gpu.power_limit_mw);
    nvmlDeviceGetPowerManagementMode -> nvmlEnableState_t = |_| Ok(enabled(true));
    nvmlDeviceGetTotalEnergyConsumption -> c_ulonglong = |gpu| Ok(energy_mj(gpu));
    nvmlDeviceGetUtilizationRates -> nvmlUtilization_t = |gpu| match gpu.mig {
        // Nobody can say for all parts together.
        Some(true) => Err(NOT_SUPPORTED),
        _ => Ok(nvmlUtilization_t {
            gpu: busy(gpu.utilization.gpu),
            memory: busy(gpu.utilization.memory),
        }),
    };
    nvmlDeviceGetPersistenceMode -> nvmlEnableState_t = |gpu| Ok(enabled(gpu.persistence));
    nvmlDeviceGetCurrentClocksThrottleReasons -> c_ulonglong = |gpu| Ok(gpu.clock_event_reasons);
    nvmlDeviceGetCurrentClocksEventReasons -> c_ulonglong = |gpu| Ok(gpu.clock_event_reasons);
    nvmlDeviceGetSupportedClocksThrottleReasons -> c_ulonglong = |_| Ok(CLOCK_EVENT_REASONS);
    nvmlDeviceGetSupportedClocksEventReasons -> c_ulonglong = |_| Ok(CLOCK_EVENT_REASONS);
    nvmlDeviceGetArchitecture -> c_uint = |gpu| Ok(gpu.architecture);
    nvmlDeviceGetModuleId -> c_uint = |gpu| gpu.module_id.ok_or(NOT_SUPPORTED);
    nvmlDeviceGetBoardId -> c_uint = |gpu| Ok(0x5300 + gpu.index * 0x1100);
    nvmlDeviceGetMultiGpuBoard -> c_uint = |_| Ok(0);
    // Tesla of old, NVIDIA since Ampere.
    nvmlDeviceGetBrand -> c_uint = |gpu| Ok(if gpu.name.starts_with("Tesla") { 2 } else { 14 });
    nvmlDeviceGetComputeMode -> c_uint = |_| Ok(0);
    nvmlDeviceGetDisplayActive -> nvmlEnableState_t = |_| Ok(enabled(false));
    nvmlDeviceGetDisplayMode -> nvmlEnableState_t = |_| Ok(enabled(false));
    nvmlDeviceGetPerformanceState -> c_uint = |gpu| Ok(performance_state(gpu));
    nvmlDeviceGetPowerState -> c_uint = |gpu| Ok(performance_state(gpu));
    nvmlDeviceGetAccountingMode -> nvmlEnableState_t = |_| Ok(enabled(false));
    nvmlDeviceGetAccountingBufferSize -> c_uint = |_| Ok(4000);
    // Passed through to a machine of EC2.
    nvmlDeviceGetVirtualizationMode -> c_uint = |_| Ok(1);
    nvmlDeviceGetNumGpuCores -> c_uint = |gpu| Ok(multiprocessors(gpu) * 128);
    nvmlDeviceGetNumaNodeId -> c_uint = |_| Err(NOT_SUPPORTED);
    nvmlDeviceGetNumFans -> c_uint = |_| Ok(0);
    nvmlDeviceGetFanSpeed -> c_uint = |_| Err(NOT_SUPPORTED);
    nvmlDeviceGetIrqNum -> c_uint = |gpu| Ok(160 + gpu.index);
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetIndex(
    device: nvmlDevice_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    let index = on_device("nvmlDeviceGetIndex", device, |gpu, state| Ok(position(gpu, state)));
    // SAFETY: the caller passes a pointer to an unsigned int, as nvml.h demands.
    unsafe { put(out, index) }
}

/// NVML numbers the devices that are there, so a missing one moves the later ones up.
fn position(gpu: &Gpu, state: &State) -> c_uint {
    let position = state.gpus.iter().position(|other| other.uuid == gpu.uuid);
    position.and_then(|position| c_uint::try_from(position).ok()).unwrap_or(c_uint::MAX)
}

texts! {
    nvmlDeviceGetName = |target| Ok(name(&target));
    nvmlDeviceGetUUID = |target| {
        Ok(target.part.map_or_else(|| target.gpu.uuid.clone(), |part| part.uuid.clone()))
    };
    nvmlDeviceGetSerial = |target| Ok(target.gpu.serial.clone());
    nvmlDeviceGetVbiosVersion = |_| Ok("96.00.99.00.01".to_owned());
    nvmlDeviceGetBoardPartNumber = |_| Ok("692-2G520-0200-000".to_owned());
    nvmlDeviceGetInforomImageVersion = |_| Ok("G520.0200.00.05".to_owned());
}

/// The one text whose room is agreed on beforehand.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGspFirmwareVersion(
    device: nvmlDevice_t,
    out: *mut c_char,
) -> nvmlReturn_t {
    let version = on_device("nvmlDeviceGetGspFirmwareVersion", device, |gpu, state| {
        match (gpu.gsp.enabled, &gpu.gsp.version) {
            (false, _) => Err(NOT_SUPPORTED),
            (true, Some(version)) => Ok(version.clone()),
            (true, None) => Ok(state.driver_version.clone()),
        }
    });
    // SAFETY: the caller passes a buffer of this size, as nvml.h demands.
    unsafe { put_text(out, sys::NVML_GSP_FIRMWARE_VERSION_BUF_SIZE, version) }
}

fn name(target: &Target<'_>) -> String {
    match target.part {
        Some(part) => format!("{} MIG {}", target.gpu.name, part.profile),
        None => target.gpu.name.clone(),
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetInforomVersion(
    device: nvmlDevice_t,
    object: c_uint,
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    let version = on_target("nvmlDeviceGetInforomVersion", device, |_| match object {
        0 => Ok("2.1".to_owned()),
        1 => Ok("7.16".to_owned()),
        _ => Err(NOT_SUPPORTED),
    });
    // SAFETY: the caller passes a buffer of `length` bytes, as nvml.h demands.
    unsafe { put_text(out, length, version) }
}

pairs! {
    nvmlDeviceGetEncoderUtilization -> (c_uint, c_uint) =
        |gpu| Ok((busy(gpu.utilization.encoder), 1_000_000));
    nvmlDeviceGetDecoderUtilization -> (c_uint, c_uint) =
        |gpu| Ok((busy(gpu.utilization.decoder), 1_000_000));
    nvmlDeviceGetJpgUtilization -> (c_uint, c_uint) = |_| Ok((0, 1_000_000));
    nvmlDeviceGetOfaUtilization -> (c_uint, c_uint) = |_| Ok((0, 1_000_000));
    nvmlDeviceGetCudaComputeCapability -> (c_int, c_int) = |gpu| Ok(gpu.compute_capability);
    nvmlDeviceGetPowerManagementLimitConstraints -> (c_uint, c_uint) =
        |gpu| Ok((gpu.power_limit_mw / 4, gpu.power_limit_mw));
    // Whether the firmware runs, and whether it does unless told otherwise.
    nvmlDeviceGetGspFirmwareMode -> (c_uint, c_uint) = |gpu| {
        Ok((c_uint::from(gpu.gsp.enabled), 1))
    };
}

choices! {
    nvmlDeviceGetTemperature(c_uint) -> c_uint = |gpu, sensor| match sensor {
        sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU => Ok(gpu.temperature_c),
        _ => Err(INVALID_ARGUMENT),
    };
    nvmlDeviceGetTemperatureThreshold(c_uint) -> c_uint = |_, threshold| match threshold {
        0 => Ok(SHUTDOWN),
        1 => Ok(SLOWDOWN),
        2 => Ok(MEMORY_MAX),
        3 => Ok(GPU_MAX),
        _ => Err(NOT_SUPPORTED),
    };
    nvmlDeviceGetClockInfo(c_uint) -> c_uint = |gpu, clock| clocks(gpu, clock).map(|pair| pair.0);
    nvmlDeviceGetMaxClockInfo(c_uint) -> c_uint =
        |gpu, clock| clocks(gpu, clock).map(|pair| pair.1);
    nvmlDeviceGetApplicationsClock(c_uint) -> c_uint =
        |gpu, clock| clocks(gpu, clock).map(|pair| pair.1);
    nvmlDeviceGetDefaultApplicationsClock(c_uint) -> c_uint =
        |gpu, clock| clocks(gpu, clock).map(|pair| pair.1);
    nvmlDeviceGetMaxCustomerBoostClock(c_uint) -> c_uint =
        |gpu, clock| clocks(gpu, clock).map(|pair| pair.1);
    nvmlDeviceGetViolationStatus(c_uint) -> sys::nvmlViolationTime_t = |gpu, policy| {
        let name = POLICIES.get(policy as usize).ok_or(INVALID_ARGUMENT)?;
        Ok(sys::nvmlViolationTime_t {
            referenceTime: u64::try_from(since_boot().as_micros()).unwrap_or(u64::MAX),
            violationTime: gpu.violations_ns.get(*name).copied().unwrap_or_default(),
        })
    };
}

/// Policies that hold clocks down, in NVML's order.
pub(super) const POLICIES: [&str; 6] =
    ["power", "thermal", "syncBoost", "boardLimit", "lowUtilization", "reliability"];

versioned! {
    nvmlDeviceGetTemperatureV -> sys::nvmlTemperature_v1_t, 1 = |gpu, version| {
        Ok(sys::nvmlTemperature_v1_t {
            version,
            sensorType: sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU,
            temperature: c_int::try_from(gpu.temperature_c).unwrap_or(c_int::MAX),
        })
    };
    nvmlDeviceGetMarginTemperature -> sys::nvmlMarginTemperature_v1_t, 1 = |gpu, version| {
        if gpu.architecture < HOPPER {
            return Err(NOT_SUPPORTED);
        }
        let margin = i64::from(GPU_MAX) - i64::from(gpu.temperature_c);
        Ok(sys::nvmlMarginTemperature_v1_t {
            version,
            marginTemperature: c_int::try_from(margin).unwrap_or_default(),
        })
    };
}

/// A clock of a kind, now or at most.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetClock(
    device: nvmlDevice_t,
    clock: c_uint,
    id: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetClock", device, |gpu, _| {
        let (now, most) = clocks(gpu, clock)?;
        Ok(if id == 0 { now } else { most })
    });
    // SAFETY: the caller passes a pointer to an unsigned int, as nvml.h demands.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetSupportedMemoryClocks(
    device: nvmlDevice_t,
    count: *mut c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    let clocks = on_device("nvmlDeviceGetSupportedMemoryClocks", device, |gpu, _| {
        Ok(vec![gpu.memory_clock_mhz.1])
    });
    // SAFETY: the caller passes a list of `*count` elements, as nvml.h demands.
    unsafe { put_list(count, out, clocks) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetSupportedGraphicsClocks(
    device: nvmlDevice_t,
    memory: c_uint,
    count: *mut c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    let clocks = on_device("nvmlDeviceGetSupportedGraphicsClocks", device, |gpu, _| {
        if memory != gpu.memory_clock_mhz.1 {
            return Err(sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND);
        }
        Ok((0..8).map(|step| gpu.sm_clock_mhz.1 - 15 * step).collect())
    });
    // SAFETY: the caller passes a list of `*count` elements, as nvml.h demands.
    unsafe { put_list(count, out, clocks) }
}

/// The processors near the device: the first sixty-four.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetCpuAffinity(
    device: nvmlDevice_t,
    length: c_uint,
    out: *mut c_ulong,
) -> nvmlReturn_t {
    if out.is_null() || length == 0 {
        return INVALID_ARGUMENT;
    }
    let near = on_device("nvmlDeviceGetCpuAffinity", device, |_, _| Ok(()));
    if let Err(code) = near {
        return code;
    }
    for index in 0..length as usize {
        // SAFETY: the caller passes `length` words, as nvml.h demands.
        unsafe { out.add(index).write(if index == 0 { c_ulong::MAX } else { 0 }) };
    }
    SUCCESS
}

pub(super) fn clocks(gpu: &Gpu, clock: c_uint) -> Result<(c_uint, c_uint), nvmlReturn_t> {
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

/// At rest 8, at work 0; parts with HBM always 0.
fn performance_state(gpu: &Gpu) -> c_uint {
    if gpu.utilization.gpu > 0 || gpu.memory_temperature_c.is_some() { 0 } else { 8 }
}

/// Multiprocessors of the whole device, roughly: what a program may divide by.
fn multiprocessors(gpu: &Gpu) -> c_uint {
    if gpu.memory_temperature_c.is_some() { 132 } else { 60 }
}

pub(super) fn enabled(on: bool) -> nvmlEnableState_t {
    nvmlEnableState_t::from(on)
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
