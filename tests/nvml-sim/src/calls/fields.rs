//! `nvmlDeviceGetFieldValues`: the values that have a number instead of a function.

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings as sys;
use sys::{nvmlDevice_t, nvmlFieldValue_t, nvmlReturn_t, nvmlValue_st};

use super::device::{energy_mj, power_mw};
use crate::session::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, on_device, since_boot};
use crate::state::{Gpu, RemappedRows};

const MEMORY_TEMPERATURE: c_uint = 82;
const TOTAL_ENERGY: c_uint = 83;
const PCIE_REPLAYS: c_uint = 94;
const NVLINK_SENT: c_uint = 138;
const NVLINK_RECEIVED: c_uint = 139;
const REMAPPED_CORRECTABLE: c_uint = 142;
const REMAPPED_UNCORRECTABLE: c_uint = 143;
const REMAPPED_PENDING: c_uint = 144;
const REMAPPED_FAILURE: c_uint = 145;
const POWER_AVERAGE: c_uint = 185;
const POWER_INSTANT: c_uint = 186;
const RECOVERY_ACTION: c_uint = 230;
/// A scope that means all links together.
const ALL_LINKS: c_uint = c_uint::MAX;

enum Value {
    Int(c_uint),
    Long(u64),
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    let Ok(count) = usize::try_from(count) else { return INVALID_ARGUMENT };
    if values.is_null() || count == 0 {
        return INVALID_ARGUMENT;
    }
    let gpu = match on_device("nvmlDeviceGetFieldValues", device, |gpu, _| Ok(gpu.clone())) {
        Ok(gpu) => gpu,
        Err(code) => return code,
    };
    // SAFETY: the caller passes `count` values with their ids set, as nvml.h demands.
    let values = unsafe { std::slice::from_raw_parts_mut(values, count) };
    for value in values {
        answer(&gpu, value);
    }
    SUCCESS
}

fn answer(gpu: &Gpu, out: &mut nvmlFieldValue_t) {
    out.timestamp = i64::try_from(since_boot().as_micros()).unwrap_or(i64::MAX);
    out.latencyUsec = 0;
    match value(gpu, out.fieldId, out.scopeId) {
        Ok(value) => {
            out.nvmlReturn = SUCCESS;
            (out.valueType, out.value) = match value {
                Value::Int(value) => (
                    sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT,
                    nvmlValue_st { uiVal: value },
                ),
                Value::Long(value) => (
                    sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
                    nvmlValue_st { ullVal: value },
                ),
            };
        }
        Err(code) => out.nvmlReturn = code,
    }
}

fn value(gpu: &Gpu, field: c_uint, scope: c_uint) -> Result<Value, nvmlReturn_t> {
    let rows = |read: fn(RemappedRows) -> c_uint| {
        gpu.remapped_rows.map(|rows| Value::Int(read(rows))).ok_or(NOT_SUPPORTED)
    };
    match field {
        MEMORY_TEMPERATURE => gpu.memory_temperature_c.map(Value::Int).ok_or(NOT_SUPPORTED),
        TOTAL_ENERGY => Ok(Value::Long(energy_mj(gpu))),
        PCIE_REPLAYS => Ok(Value::Int(gpu.pcie.replays)),
        NVLINK_SENT => nvlink_kib(gpu, scope, |rates| rates.0),
        NVLINK_RECEIVED => nvlink_kib(gpu, scope, |rates| rates.1),
        REMAPPED_CORRECTABLE => rows(|rows| rows.correctable),
        REMAPPED_UNCORRECTABLE => rows(|rows| rows.uncorrectable),
        REMAPPED_PENDING => rows(|rows| rows.pending.into()),
        REMAPPED_FAILURE => rows(|rows| rows.failed.into()),
        POWER_AVERAGE | POWER_INSTANT => Ok(Value::Int(power_mw(gpu))),
        RECOVERY_ACTION => gpu.recovery_action.map(Value::Int).ok_or(NOT_SUPPORTED),
        _ => Err(NOT_SUPPORTED),
    }
}

/// Data that went over one link or over all of them since boot.
fn nvlink_kib(
    gpu: &Gpu,
    scope: c_uint,
    rate: fn((u64, u64)) -> u64,
) -> Result<Value, nvmlReturn_t> {
    let nvlink = gpu.nvlink.ok_or(NOT_SUPPORTED)?;
    let total = rate(nvlink.kib_per_second) * since_boot().as_secs();
    match scope {
        ALL_LINKS => Ok(Value::Long(total)),
        link if link < nvlink.links => Ok(Value::Long(total / u64::from(nvlink.links))),
        _ => Err(INVALID_ARGUMENT),
    }
}
