//! The programs that use a device, in the three forms that drivers have had.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;
use sys::{
    nvmlDevice_t, nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t, nvmlProcessUtilizationSample_t,
    nvmlReturn_t,
};

use super::put_list;
use crate::session::{NOT_FOUND, on_device, on_target, since_boot};
use crate::state::{Process, State};

const MIB: u64 = 1024 * 1024;
/// No part of a device.
const WHOLE: c_uint = c_uint::MAX;

/// What kind of use a list is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Compute,
    Graphics,
    /// Through the multi process service: nobody here does.
    Shared,
}

fn list(
    call: &str,
    device: nvmlDevice_t,
    of: Use,
) -> Result<Vec<nvmlProcessInfo_v2_t>, nvmlReturn_t> {
    on_target(call, device, |target| {
        let parts = &target.gpu.mig_devices;
        let of_use = target.gpu.processes.iter().filter(|process| match of {
            Use::Compute => !process.graphics,
            Use::Graphics => process.graphics,
            Use::Shared => false,
        });
        let on_target = of_use.filter(|process| {
            let own = process.mig_device.and_then(|index| parts.get(index));
            target.part.is_none_or(|part| own.is_some_and(|own| own.uuid == part.uuid))
        });
        let info = |process: &Process| {
            let part = process.mig_device.and_then(|index| parts.get(index));
            nvmlProcessInfo_v2_t {
                pid: process.pid,
                usedGpuMemory: process.memory_mib * MIB,
                gpuInstanceId: part.map_or(WHOLE, |part| part.gi_id),
                computeInstanceId: part.map_or(WHOLE, |part| part.ci_id),
            }
        };
        Ok(on_target.map(info).collect())
    })
}

/// Lists with the parts of a device: the second and third form, which are laid out alike.
macro_rules! lists {
    ($($name:ident = $of:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            count: *mut c_uint,
            out: *mut nvmlProcessInfo_v2_t,
        ) -> nvmlReturn_t {
            let processes = list(stringify!($name), device, $of);
            // SAFETY: the caller passes a list of `*count` elements, as nvml.h demands.
            unsafe { put_list(count, out, processes) }
        }
    )*};
}

lists! {
    nvmlDeviceGetComputeRunningProcesses_v3 = Use::Compute;
    nvmlDeviceGetComputeRunningProcesses_v2 = Use::Compute;
    nvmlDeviceGetGraphicsRunningProcesses_v3 = Use::Graphics;
    nvmlDeviceGetGraphicsRunningProcesses_v2 = Use::Graphics;
    nvmlDeviceGetMPSComputeRunningProcesses_v3 = Use::Shared;
    nvmlDeviceGetMPSComputeRunningProcesses_v2 = Use::Shared;
}

/// Lists of the first form: process and memory alone.
macro_rules! first_lists {
    ($($name:ident = $of:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            count: *mut c_uint,
            out: *mut nvmlProcessInfo_v1_t,
        ) -> nvmlReturn_t {
            let first = |process: nvmlProcessInfo_v2_t| nvmlProcessInfo_v1_t {
                pid: process.pid,
                usedGpuMemory: process.usedGpuMemory,
            };
            let processes = list(stringify!($name), device, $of);
            let processes = processes.map(|list| list.into_iter().map(first).collect());
            // SAFETY: the caller passes a list of `*count` elements, as nvml.h demands.
            unsafe { put_list(count, out, processes) }
        }
    )*};
}

first_lists! {
    nvmlDeviceGetComputeRunningProcesses = Use::Compute;
    nvmlDeviceGetGraphicsRunningProcesses = Use::Graphics;
    nvmlDeviceGetMPSComputeRunningProcesses = Use::Shared;
}

/// How busy each program kept the device: all alike.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    out: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    _since: c_ulonglong,
) -> nvmlReturn_t {
    let samples = on_device("nvmlDeviceGetProcessUtilization", device, |gpu, _: &State| {
        if gpu.processes.is_empty() {
            return Err(NOT_FOUND);
        }
        let among = u32::try_from(gpu.processes.len()).unwrap_or(1);
        let sample = |process: &Process| nvmlProcessUtilizationSample_t {
            pid: process.pid,
            timeStamp: u64::try_from(since_boot().as_micros()).unwrap_or(u64::MAX),
            smUtil: gpu.utilization.gpu / among,
            memUtil: gpu.utilization.memory / among,
            encUtil: gpu.utilization.encoder / among,
            decUtil: gpu.utilization.decoder / among,
        };
        Ok(gpu.processes.iter().map(sample).collect())
    });
    // SAFETY: the caller passes a list of `*count` elements, as nvml.h demands.
    unsafe { put_list(count, out, samples) }
}
