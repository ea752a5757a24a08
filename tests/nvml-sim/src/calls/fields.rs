//! `nvmlDeviceGetFieldValues`: the values that have a number instead of a function.

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings as sys;
use sys::{nvmlDevice_t, nvmlFieldValue_t, nvmlReturn_t, nvmlValue_st};

use super::device::{POLICIES, energy_mj, power_mw};
use super::link::{nvlink_speed, nvlink_version, of_link};
use super::memory::ecc_count;
use crate::session::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, on_device, since_boot};
use crate::state::{Gpu, Nvlink, RetiredPages};

/// A scope that means all links together.
const ALL_LINKS: c_uint = c_uint::MAX;
const TURING: c_uint = 6;
const HOPPER: c_uint = 9;

enum Value {
    Int(c_uint),
    Signed(c_int),
    Long(u64),
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetFieldValues(
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
                Value::Signed(value) => (
                    sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT,
                    nvmlValue_st { siVal: value },
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

/// A field's value: each group of fields answers for its own, by the numbers of `nvml.h`.
fn value(gpu: &Gpu, field: c_uint, scope: c_uint) -> Result<Value, nvmlReturn_t> {
    match field {
        1..=6 | 29..=31 | 92 | 93 | 142..=145 => memory(gpu, field),
        32..=73 | 84..=91 | 96..=141 | 146..=168 | 201..=215 => nvlink(gpu, field, scope),
        94 | 95 | 169 | 173..=183 | 197 | 198 => pcie(gpu, field),
        74..=79 => {
            let policy = POLICIES[(field - 74) as usize];
            Ok(Value::Long(gpu.violations_ns.get(policy).copied().unwrap_or_default()))
        }
        82 => gpu.memory_temperature_c.map(Value::Int).ok_or(NOT_SUPPORTED),
        83 | 191 => Ok(Value::Long(energy_mj(gpu))),
        185 | 186 => Ok(Value::Int(power_mw(gpu))),
        187 => Ok(Value::Int(gpu.power_limit_mw / 4)),
        188..=190 | 192 => Ok(Value::Int(gpu.power_limit_mw)),
        // Distances to the limits, below zero beyond them.
        193..=196 if gpu.architecture >= HOPPER => {
            Ok(Value::Signed([-8, -5, 0, 0][(field - 193) as usize]))
        }
        // Whether a reset, or one after draining, is asked for.
        226 => Ok(Value::Int((gpu.recovery_action == Some(1)).into())),
        227 => Ok(Value::Int((gpu.recovery_action == Some(4)).into())),
        230 => gpu.recovery_action.map(Value::Int).ok_or(NOT_SUPPORTED),
        _ => Err(NOT_SUPPORTED),
    }
}

fn memory(gpu: &Gpu, field: c_uint) -> Result<Value, nvmlReturn_t> {
    let ecc = gpu.ecc.ok_or(NOT_SUPPORTED);
    let rows = gpu.remapped_rows.ok_or(NOT_SUPPORTED);
    let pages = |read: fn(RetiredPages) -> c_uint| {
        gpu.retired_pages.map(|pages| Value::Int(read(pages))).ok_or(NOT_SUPPORTED)
    };
    match field {
        1 => Ok(Value::Int(ecc?.enabled.into())),
        2 => ecc.map(|ecc| Value::Int(ecc.pending.unwrap_or(ecc.enabled).into())),
        // Corrected and uncorrected since the driver was loaded, then in the board's life.
        3..=6 => ecc_count(ecc?, (field - 3) % 2, (field - 3) / 2).map(Value::Long),
        29 => pages(|pages| pages.single_bit),
        30 => pages(|pages| pages.double_bit),
        31 | 93 => pages(|pages| pages.pending.into()),
        92 => pages(|_| 0),
        142 => Ok(Value::Int(rows?.correctable)),
        143 => Ok(Value::Int(rows?.uncorrectable)),
        144 => Ok(Value::Int(rows?.pending.into())),
        145 => Ok(Value::Int(rows?.failed.into())),
        _ => Err(NOT_SUPPORTED),
    }
}

fn pcie(gpu: &Gpu, field: c_uint) -> Result<Value, nvmlReturn_t> {
    let counted = |count: u32| {
        if gpu.architecture > TURING { Ok(Value::Int(count)) } else { Err(NOT_SUPPORTED) }
    };
    match field {
        94 => Ok(Value::Int(gpu.pcie.replays)),
        95 => Ok(Value::Int(0)),
        173 | 176 => counted(gpu.pcie.aer.correctable),
        179 => counted(gpu.pcie.aer.nonfatal),
        180 => counted(gpu.pcie.aer.fatal),
        169 | 174 | 175 | 177 | 178 | 181..=183 => counted(0),
        197 | 198 if gpu.architecture >= HOPPER => {
            Ok(Value::Long(u64::from(gpu.utilization.gpu) * (4 << 20) * since_boot().as_secs()))
        }
        _ => Err(NOT_SUPPORTED),
    }
}

fn nvlink(gpu: &Gpu, field: c_uint, scope: c_uint) -> Result<Value, nvmlReturn_t> {
    let nvlink = gpu.nvlink.ok_or(NOT_SUPPORTED)?;
    let errors = nvlink.errors;
    let fifth = gpu.architecture > HOPPER;
    match field {
        // Sums over all links; of one link each, below.
        38 => Ok(Value::Long(errors.crc_flit)),
        45 => Ok(Value::Long(errors.crc_data)),
        52 => Ok(Value::Long(errors.replay)),
        59 => Ok(Value::Long(errors.recovery)),
        32..=58 | 96..=119 | 148..=160 if gpu.architecture <= HOPPER => Ok(Value::Long(0)),
        84..=90 | 132..=137 => Ok(Value::Int(nvlink_speed(gpu))),
        91 => Ok(Value::Int(nvlink.links)),
        // Data, and the same with what it is packed in.
        138 => kib(nvlink, scope, |rates| rates.0),
        139 => kib(nvlink, scope, |rates| rates.1),
        140 => kib(nvlink, scope, |rates| rates.0 * 9 / 8),
        141 => kib(nvlink, scope, |rates| rates.1 * 9 / 8),
        147 => gpu.module_id.map(|_| Value::Int(nvlink.links)).ok_or(NOT_SUPPORTED),
        161 if !fifth => Ok(Value::Long(of_scope(nvlink, scope, errors.replay)?)),
        162 if !fifth => Ok(Value::Long(of_scope(nvlink, scope, errors.recovery)?)),
        163 if !fifth => Ok(Value::Long(of_scope(nvlink, scope, errors.crc_flit)?)),
        164 => of_link(gpu, scope).map(|_| Value::Int(nvlink_speed(gpu))),
        165 => of_link(gpu, scope).map(|link| Value::Int((link.down & (1 << scope) == 0).into())),
        166 => of_link(gpu, scope).map(|_| Value::Int(nvlink_version(gpu))),
        202 if fifth => kib(nvlink, scope, |rates| rates.0 * 1024),
        204 if fifth => kib(nvlink, scope, |rates| rates.1 * 1024),
        // Receive errors and the like; then recoveries: well, badly, all.
        206..=212 if fifth => Ok(Value::Long(of_scope(nvlink, scope, errors.crc_data)?)),
        213 | 215 if fifth => Ok(Value::Long(of_scope(nvlink, scope, errors.recovery)?)),
        214 if fifth => Ok(Value::Long(of_scope(nvlink, scope, errors.recovery_failed)?)),
        _ => Err(NOT_SUPPORTED),
    }
}

/// A count of one link, or of all of them: the first link's are all of them.
fn of_scope(nvlink: Nvlink, scope: c_uint, total: u64) -> Result<u64, nvmlReturn_t> {
    match scope {
        0 | ALL_LINKS => Ok(total),
        link if link < nvlink.links => Ok(0),
        _ => Err(INVALID_ARGUMENT),
    }
}

/// Data that went over one link or over all of them since boot.
fn kib(nvlink: Nvlink, scope: c_uint, rate: fn((u64, u64)) -> u64) -> Result<Value, nvmlReturn_t> {
    let total = rate(nvlink.kib_per_second) * since_boot().as_secs();
    match scope {
        ALL_LINKS => Ok(Value::Long(total)),
        link if link < nvlink.links => Ok(Value::Long(total / u64::from(nvlink.links))),
        _ => Err(INVALID_ARGUMENT),
    }
}
