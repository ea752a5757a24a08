//! Event sets: a program registers devices, and waits for what the state file says happens after.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as sys;
use sys::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};

use super::{code, put};
use crate::session::{
    INVALID_ARGUMENT, SUCCESS, TIMEOUT, enter, handle_of, look, on_device, pause,
};
use crate::state::{Event, EventKind, State};

/// Every kind of [`EventKind`].
const SUPPORTED: c_ulonglong = 0x1f;
/// How often a wait looks at the state.
const POLL: Duration = Duration::from_millis(20);
/// No part of a device.
const WHOLE: c_uint = c_uint::MAX;

/// What a set is registered for, and what it has had.
#[derive(Default)]
struct Set {
    /// Kinds by the device's UUID.
    wanted: BTreeMap<String, c_ulonglong>,
    /// Number of the last event before the first registration, or of the last one given.
    had: u64,
}

/// What a handle points to. A set may be waited on by one thread while another registers devices.
type Shared = Mutex<Set>;

const fn bit(kind: EventKind) -> c_ulonglong {
    match kind {
        EventKind::EccSingle => 0x1,
        EventKind::EccDouble => 0x2,
        EventKind::Pstate => 0x4,
        EventKind::Xid => 0x8,
        EventKind::Clock => 0x10,
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetCreate(out: *mut nvmlEventSet_t) -> nvmlReturn_t {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    let set = enter("nvmlEventSetCreate").map(|_| Box::into_raw(Box::<Shared>::default()).cast());
    // SAFETY: the caller passes a pointer to an event set, as nvml.h demands.
    unsafe { put(out, set) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    if set.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: the caller gives back, once, what nvmlEventSetCreate boxed for it.
    drop(unsafe { Box::from_raw(set.cast::<Shared>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetSupportedEventTypes", device, |_, _| Ok(SUPPORTED));
    // SAFETY: the caller passes a pointer to an unsigned long long, as nvml.h demands.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    // SAFETY: null, or what nvmlEventSetCreate boxed and nobody has freed.
    let Some(set) = (unsafe { set.cast::<Shared>().as_ref() }) else { return INVALID_ARGUMENT };
    if types & !SUPPORTED != 0 {
        return INVALID_ARGUMENT;
    }
    code(on_device("nvmlDeviceRegisterEvents", device, |gpu, state| {
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.wanted.is_empty() {
            set.had = state.events.last().map_or(0, |event| event.number);
        }
        *set.wanted.entry(gpu.uuid.clone()).or_default() |= types;
        Ok(())
    }))
}

/// The first event that the set waits for; those that it does not want count as had.
fn next(state: &State, set: &mut Set) -> Option<(Event, String)> {
    let had = set.had;
    for event in state.events.iter().filter(|event| event.number > had).copied() {
        set.had = event.number;
        let uuid = state.gpu(event.gpu).map(|gpu| gpu.uuid.clone())?;
        if set.wanted.get(&uuid).is_some_and(|wanted| wanted & bit(event.kind) != 0) {
            return Some((event, uuid));
        }
    }
    // A new list begins at 1 again, as after a boot.
    set.had = set.had.min(state.events.last().map_or(0, |event| event.number));
    None
}

fn wait(set: nvmlEventSet_t, timeout: Duration) -> Result<nvmlEventData_t, nvmlReturn_t> {
    // SAFETY: null, or what nvmlEventSetCreate boxed and nobody has freed.
    let set = (unsafe { set.cast::<Shared>().as_ref() }).ok_or(INVALID_ARGUMENT)?;
    enter("nvmlEventSetWait_v2")?;
    let start = Instant::now();
    loop {
        if let Some(state) = look() {
            let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((event, uuid)) = next(&state, &mut set) {
                return Ok(nvmlEventData_t {
                    device: handle_of(&uuid),
                    eventType: bit(event.kind),
                    eventData: event.data,
                    gpuInstanceId: WHOLE,
                    computeInstanceId: WHOLE,
                });
            }
        }
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(TIMEOUT);
        }
        pause(left.min(POLL));
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    if data.is_null() {
        return INVALID_ARGUMENT;
    }
    let event = wait(set, Duration::from_millis(timeout_ms.into()));
    // SAFETY: the caller passes a pointer to that structure, as nvml.h demands.
    unsafe { put(data, event) }
}
