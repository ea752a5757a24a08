//! Event sets: they can be made, waited on and freed. No event comes yet; a wait times out.

use std::ffi::{c_uint, c_ulonglong};
use std::time::Duration;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};

use super::{code, put};
use crate::session::{INVALID_ARGUMENT, SUCCESS, TIMEOUT, enter, on_device, pause};

/// Single and double bit ECC, performance state, critical XID and clock events.
const SUPPORTED: c_ulonglong = 0x1f;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(out: *mut nvmlEventSet_t) -> nvmlReturn_t {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    let set = enter("nvmlEventSetCreate").map(|_| Box::into_raw(Box::new(0_u64)).cast());
    // SAFETY: the caller passes a pointer to an event set, as nvml.h demands.
    unsafe { put(out, set) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    if set.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: the caller gives back, once, what nvmlEventSetCreate boxed for it.
    drop(unsafe { Box::from_raw(set.cast::<u64>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetSupportedEventTypes", device, |_, _| Ok(SUPPORTED));
    // SAFETY: the caller passes a pointer to an unsigned long long, as nvml.h demands.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    if set.is_null() || types & !SUPPORTED != 0 {
        return INVALID_ARGUMENT;
    }
    code(on_device("nvmlDeviceRegisterEvents", device, |_, _| Ok(())))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    if set.is_null() || data.is_null() {
        return INVALID_ARGUMENT;
    }
    match enter("nvmlEventSetWait_v2") {
        Ok(_) => {
            pause(Duration::from_millis(timeout_ms.into()));
            TIMEOUT
        }
        Err(code) => code,
    }
}
