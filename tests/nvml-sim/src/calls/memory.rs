//! A device's memory: how much, its errors, and what was done about them.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;
use sys::{
    nvmlBAR1Memory_t, nvmlDevice_t, nvmlEccSramErrorStatus_v1_t, nvmlEnableState_t, nvmlMemory_t,
    nvmlMemory_v2_t, nvmlReturn_t, nvmlRowRemapperHistogramValues_t,
};

use super::device::enabled;
use super::shapes::{getters, pairs, versioned};
use super::{put, put_list, version_at, version_of};
use crate::session::{
    INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, Target, VERSION_OF_STRUCT, on_device, on_target,
    since_boot,
};
use crate::state::{Banks, Ecc, Gpu, RetiredPages};

const MIB: u64 = 1024 * 1024;
/// Banks of a device that have spare rows.
const BANKS: u32 = 640;
/// Where errors are counted.
const DEVICE_MEMORY: c_uint = 2;
const SRAM: c_uint = 7;

/// Memory in MiB: all, reserved, used.
struct Shares {
    total: u64,
    reserved: u64,
    used: u64,
}

impl Shares {
    fn of(target: &Target<'_>) -> Self {
        let gpu = target.gpu;
        match target.part {
            Some(part) => {
                let position = gpu.mig_devices.iter().position(|other| other.uuid == part.uuid);
                let own = gpu.processes.iter().filter(|one| one.mig_device == position);
                Self { total: part.memory_mib, reserved: 0, used: own.map(|p| p.memory_mib).sum() }
            }
            None => Self {
                total: gpu.memory_mib,
                reserved: gpu.memory_reserved_mib,
                used: gpu.memory_used_mib + gpu.processes.iter().map(|p| p.memory_mib).sum::<u64>(),
            },
        }
    }

    fn free(&self) -> u64 {
        self.total.saturating_sub(self.reserved + self.used)
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMemoryInfo(
    device: nvmlDevice_t,
    out: *mut nvmlMemory_t,
) -> nvmlReturn_t {
    let answer = on_target("nvmlDeviceGetMemoryInfo", device, |target| {
        let shares = Shares::of(&target);
        Ok(nvmlMemory_t {
            total: shares.total * MIB,
            free: shares.free() * MIB,
            // The first version counts what is reserved as used.
            used: (shares.used + shares.reserved) * MIB,
        })
    });
    // SAFETY: the caller passes a pointer to that structure, as nvml.h demands.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    out: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    // SAFETY: null, or the caller passes a structure whose version it has set.
    let version = match unsafe { version_at(out) } {
        Ok(version) => version,
        Err(code) => return code,
    };
    if version != version_of::<nvmlMemory_v2_t>(2) {
        return VERSION_OF_STRUCT;
    }
    let answer = on_target("nvmlDeviceGetMemoryInfo_v2", device, |target| {
        let shares = Shares::of(&target);
        Ok(nvmlMemory_v2_t {
            version,
            total: shares.total * MIB,
            reserved: shares.reserved * MIB,
            free: shares.free() * MIB,
            used: shares.used * MIB,
        })
    });
    // SAFETY: the version says that the caller's structure is this one.
    unsafe { put(out, answer) }
}

/// The window through which the host sees the memory.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetBAR1MemoryInfo(
    device: nvmlDevice_t,
    out: *mut nvmlBAR1Memory_t,
) -> nvmlReturn_t {
    let answer = on_target("nvmlDeviceGetBAR1MemoryInfo", device, |target| {
        let total = Shares::of(&target).total.next_power_of_two();
        Ok(nvmlBAR1Memory_t {
            bar1Total: total * MIB,
            bar1Free: (total - 2) * MIB,
            bar1Used: 2 * MIB,
        })
    });
    // SAFETY: the caller passes a pointer to that structure, as nvml.h demands.
    unsafe { put(out, answer) }
}

getters! {
    nvmlDeviceGetMemoryBusWidth -> c_uint =
        |gpu| Ok(if gpu.memory_temperature_c.is_some() { 5120 } else { 384 });
    nvmlDeviceGetRetiredPagesPendingStatus -> nvmlEnableState_t =
        |gpu| Ok(enabled(pages(gpu)?.pending));
    nvmlDeviceGetRowRemapperHistogram -> nvmlRowRemapperHistogramValues_t = |gpu| {
        let rows = gpu.remapped_rows.ok_or(NOT_SUPPORTED)?;
        let Banks { max, high, partial, low, none } =
            rows.banks.unwrap_or(Banks { max: BANKS, ..Banks::default() });
        Ok(nvmlRowRemapperHistogramValues_t { max, high, partial, low, none })
    };
    nvmlDeviceGetDefaultEccMode -> nvmlEnableState_t = |gpu| {
        gpu.ecc.map(|_| enabled(true)).ok_or(NOT_SUPPORTED)
    };
}

pairs! {
    nvmlDeviceGetEccMode -> (nvmlEnableState_t, nvmlEnableState_t) = |gpu| {
        let ecc = gpu.ecc.ok_or(NOT_SUPPORTED)?;
        Ok((enabled(ecc.enabled), enabled(ecc.pending.unwrap_or(ecc.enabled))))
    };
}

versioned! {
    nvmlDeviceGetSramEccErrorStatus -> nvmlEccSramErrorStatus_v1_t, 1 = |gpu, version| {
        if gpu.architecture < 7 {
            return Err(NOT_SUPPORTED);
        }
        let sram = gpu.ecc.filter(|ecc| ecc.enabled).ok_or(NOT_SUPPORTED)?.sram;
        Ok(nvmlEccSramErrorStatus_v1_t {
            version,
            aggregateUncParity: 0,
            aggregateUncSecDed: sram.uncorrectable,
            aggregateCor: 0,
            volatileUncParity: 0,
            volatileUncSecDed: 0,
            volatileCor: 0,
            aggregateUncBucketL2: sram.uncorrectable,
            aggregateUncBucketSm: 0,
            aggregateUncBucketPcie: 0,
            aggregateUncBucketMcu: 0,
            aggregateUncBucketOther: 0,
            bThresholdExceeded: sram.threshold_exceeded.into(),
        })
    };
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
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

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    device: nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    location: c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetMemoryErrorCounter", device, |gpu, _| {
        let ecc = gpu.ecc.ok_or(NOT_SUPPORTED)?;
        let all = ecc_count(ecc, kind, counter)?;
        let sram = if (kind, counter) == (1, 1) { ecc.sram.uncorrectable } else { 0 };
        match location {
            DEVICE_MEMORY => Ok(all.saturating_sub(sram)),
            SRAM if gpu.architecture >= 7 => Ok(sram),
            0..=8 => Err(NOT_SUPPORTED),
            _ => Err(INVALID_ARGUMENT),
        }
    });
    // SAFETY: the caller passes a pointer to an unsigned long long, as nvml.h demands.
    unsafe { put(out, answer) }
}

pub(super) fn ecc_count(ecc: Ecc, kind: c_uint, counter: c_uint) -> Result<u64, nvmlReturn_t> {
    match (ecc.enabled, kind, counter) {
        (false, ..) => Err(NOT_SUPPORTED),
        (true, 0, 0) => Ok(ecc.volatile_corrected),
        (true, 1, 0) => Ok(ecc.volatile_uncorrected),
        (true, 0, 1) => Ok(ecc.aggregate_corrected),
        (true, 1, 1) => Ok(ecc.aggregate_uncorrected + ecc.sram.uncorrectable),
        _ => Err(INVALID_ARGUMENT),
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetRemappedRows", device, |gpu, _| {
        gpu.remapped_rows.ok_or(NOT_SUPPORTED)
    });
    let rows = match answer {
        Ok(rows) => rows,
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
    codes.into_iter().find(|code| *code != SUCCESS).unwrap_or(SUCCESS)
}

fn pages(gpu: &Gpu) -> Result<RetiredPages, nvmlReturn_t> {
    gpu.retired_pages.ok_or(NOT_SUPPORTED)
}

/// Addresses of the pages retired for a cause: 0 repeated single bit, 1 double bit errors.
fn addresses(gpu: &Gpu, cause: c_uint) -> Result<Vec<c_ulonglong>, nvmlReturn_t> {
    let pages = pages(gpu)?;
    let count = match cause {
        0 => pages.single_bit,
        1 => pages.double_bit,
        _ => return Err(INVALID_ARGUMENT),
    };
    Ok((0..count).map(|page| 0x10_0000 + 0x1_0000 * u64::from(page)).collect())
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetRetiredPages(
    device: nvmlDevice_t,
    cause: c_uint,
    count: *mut c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    let pages = on_device("nvmlDeviceGetRetiredPages", device, |gpu, _| addresses(gpu, cause));
    // SAFETY: the caller passes a list of `*count` elements, as nvml.h demands.
    unsafe { put_list(count, out, pages) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: nvmlDevice_t,
    cause: c_uint,
    count: *mut c_uint,
    out: *mut c_ulonglong,
    times: *mut c_ulonglong,
) -> nvmlReturn_t {
    let pages = on_device("nvmlDeviceGetRetiredPages_v2", device, |gpu, _| addresses(gpu, cause));
    let number = pages.as_ref().map_or(0, Vec::len);
    // SAFETY: the caller passes a list of `*count` elements, as nvml.h demands.
    let code = unsafe { put_list(count, out, pages) };
    if code != SUCCESS || times.is_null() {
        return code;
    }
    for index in 0..number {
        // SAFETY: the list above had room for as many, and this one is of the same length.
        unsafe { times.add(index).write(since_boot().as_secs()) };
    }
    SUCCESS
}
