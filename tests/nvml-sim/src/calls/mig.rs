//! MIG: whether a device is cut into parts, and the handles of these.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as sys;
use sys::{nvmlDevice_t, nvmlDeviceAttributes_t, nvmlReturn_t};

use super::put;
use super::shapes::{choices, getters, pairs};
use crate::session::{INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, handle_of, on_target};
use crate::state::MigDevice;

/// Parts that a device can have.
const MAX_PARTS: c_uint = 7;

pairs! {
    nvmlDeviceGetMigMode -> (c_uint, c_uint) = |gpu| {
        let mode = c_uint::from(gpu.mig.ok_or(NOT_SUPPORTED)?);
        Ok((mode, mode))
    };
}

getters! {
    nvmlDeviceGetMaxMigDeviceCount -> c_uint = |gpu| Ok(gpu.mig.map_or(0, |_| MAX_PARTS));
}

choices! {
    // Holes are the rule: programs go through all indices and skip what is not there.
    nvmlDeviceGetMigDeviceHandleByIndex(c_uint) -> nvmlDevice_t = |gpu, index| {
        if gpu.mig != Some(true) {
            return Err(NOT_SUPPORTED);
        }
        if index >= MAX_PARTS {
            return Err(INVALID_ARGUMENT);
        }
        gpu.mig_devices.get(index as usize).map(|part| handle_of(&part.uuid)).ok_or(NOT_FOUND)
    };
}

/// Functions that give one value of a part.
macro_rules! of_part {
    ($($name:ident -> $out:ty = |$part:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(device: nvmlDevice_t, out: *mut $out) -> nvmlReturn_t {
            let answer = on_target(stringify!($name), device, |target| {
                let $part = target.part.ok_or(NOT_SUPPORTED)?;
                Ok($answer)
            });
            // SAFETY: the caller passes a pointer to the type that nvml.h demands.
            unsafe { put(out, answer) }
        }
    )*};
}

of_part! {
    nvmlDeviceGetGpuInstanceId -> c_uint = |part| part.gi_id;
    nvmlDeviceGetComputeInstanceId -> c_uint = |part| part.ci_id;
    nvmlDeviceGetAttributes_v2 -> nvmlDeviceAttributes_t = |part| attributes(part);
}

/// Slices as the profile's name begins: `3g.40gb`.
fn attributes(part: &MigDevice) -> nvmlDeviceAttributes_t {
    let slices = part.profile.split_once('g').and_then(|(slices, _)| slices.parse().ok());
    let slices = slices.unwrap_or(1);
    nvmlDeviceAttributes_t {
        multiprocessorCount: part.multiprocessors,
        sharedCopyEngineCount: slices,
        sharedDecoderCount: slices / 2,
        sharedEncoderCount: 0,
        sharedJpegCount: 0,
        sharedOfaCount: 0,
        gpuInstanceSliceCount: slices,
        computeInstanceSliceCount: slices,
        memorySizeMB: part.memory_mib,
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(
    device: nvmlDevice_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    let answer = on_target("nvmlDeviceIsMigDeviceHandle", device, |target| {
        Ok(c_uint::from(target.part.is_some()))
    });
    // SAFETY: the caller passes a pointer to an unsigned int, as nvml.h demands.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: nvmlDevice_t,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let answer = on_target("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device, |target| {
        target.part.ok_or(INVALID_ARGUMENT)?;
        Ok(handle_of(&target.gpu.uuid))
    });
    // SAFETY: the caller passes a pointer to a device handle, as nvml.h demands.
    unsafe { put(out, answer) }
}
