//! GPM: activity measured between two samples, on Hopper and later.

use std::ffi::c_uint;
use std::time::Duration;

use nvml_wrapper_sys::bindings as sys;
use sys::{
    nvmlDevice_t, nvmlGpmMetric_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t,
    nvmlReturn_t,
};

use super::device::busy;
use super::{code, put, version_at};
use crate::session::{
    INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, VERSION_OF_STRUCT, enter, on_device, since_boot,
};
use crate::state::{Gpu, State, Usage};

/// The first architecture with GPM.
const HOPPER: c_uint = 9;
const SUPPORT_VERSION: c_uint = 1;
const METRICS_VERSION: c_uint = 1;

/// What a sample holds once it was taken: whose it is and when.
#[derive(Default)]
struct Sample {
    taken: Option<(String, Duration)>,
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmQueryDeviceSupport(
    device: nvmlDevice_t,
    out: *mut nvmlGpmSupport_t,
) -> nvmlReturn_t {
    // SAFETY: null, or the caller passes a structure whose version it has set.
    match unsafe { version_at(out) } {
        Ok(SUPPORT_VERSION) => {}
        Ok(_) => return VERSION_OF_STRUCT,
        Err(code) => return code,
    }
    let answer = on_device("nvmlGpmQueryDeviceSupport", device, |gpu, _| {
        Ok(nvmlGpmSupport_t {
            version: SUPPORT_VERSION,
            isSupportedDevice: (gpu.architecture >= HOPPER).into(),
        })
    });
    // SAFETY: the caller passes a pointer to that structure, as nvml.h demands.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmSampleAlloc(out: *mut nvmlGpmSample_t) -> nvmlReturn_t {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    let sample =
        enter("nvmlGpmSampleAlloc").map(|_| Box::into_raw(Box::<Sample>::default()).cast());
    // SAFETY: the caller passes a pointer to a sample handle, as nvml.h demands.
    unsafe { put(out, sample) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> nvmlReturn_t {
    if sample.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: the caller gives back, once, what nvmlGpmSampleAlloc boxed for it.
    drop(unsafe { Box::from_raw(sample.cast::<Sample>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmSampleGet(
    device: nvmlDevice_t,
    sample: nvmlGpmSample_t,
) -> nvmlReturn_t {
    // SAFETY: null, or what nvmlGpmSampleAlloc boxed; NVML's callers use a sample from one thread.
    take("nvmlGpmSampleGet", device, unsafe { sample.cast::<Sample>().as_mut() })
}

/// A sample of one part: nobody here measures parts apart.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmMigSampleGet(
    device: nvmlDevice_t,
    _gpu_instance: c_uint,
    sample: nvmlGpmSample_t,
) -> nvmlReturn_t {
    // SAFETY: as in nvmlGpmSampleGet.
    take("nvmlGpmMigSampleGet", device, unsafe { sample.cast::<Sample>().as_mut() })
}

fn take(call: &str, device: nvmlDevice_t, sample: Option<&mut Sample>) -> nvmlReturn_t {
    let Some(sample) = sample else { return INVALID_ARGUMENT };
    code(on_device(call, device, |gpu, _| {
        if gpu.architecture < HOPPER {
            return Err(NOT_SUPPORTED);
        }
        sample.taken = Some((gpu.uuid.clone(), since_boot()));
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmMetricsGet(
    request: *mut nvmlGpmMetricsGet_t,
) -> nvmlReturn_t {
    // SAFETY: null, or a request that the caller has filled in, as nvml.h demands.
    let Some(request) = (unsafe { request.as_mut() }) else { return INVALID_ARGUMENT };
    if request.version != METRICS_VERSION {
        return VERSION_OF_STRUCT;
    }
    // SAFETY: null, or samples that nvmlGpmSampleAlloc boxed and that nobody frees meanwhile.
    let samples = unsafe {
        (request.sample1.cast::<Sample>().as_ref(), request.sample2.cast::<Sample>().as_ref())
    };
    let (Some(first), Some(second)) = samples else { return INVALID_ARGUMENT };
    let answer = enter("nvmlGpmMetricsGet").and_then(|state| {
        let gpu = measured(&state, first, second)?;
        let count = (request.numMetrics as usize).min(request.metrics.len());
        for metric in &mut request.metrics[..count] {
            measure(gpu, metric);
        }
        Ok(())
    });
    code(answer)
}

/// The GPU that both samples are of, the second taken after the first.
fn measured<'a>(
    state: &'a State,
    first: &Sample,
    second: &Sample,
) -> Result<&'a Gpu, nvmlReturn_t> {
    let (Some((uuid, start)), Some((other, end))) = (&first.taken, &second.taken) else {
        return Err(INVALID_ARGUMENT);
    };
    if uuid != other || end <= start {
        return Err(INVALID_ARGUMENT);
    }
    state.gpus.iter().find(|gpu| gpu.uuid == *uuid).ok_or(INVALID_ARGUMENT)
}

fn measure(gpu: &Gpu, metric: &mut nvmlGpmMetric_t) {
    let value = gpu.usage.map_or_else(
        || guess(gpu, metric.metricId),
        |usage| given(usage, metric.metricId).or_else(|| guess(gpu, metric.metricId)),
    );
    metric.nvmlReturn = if value.is_some() { SUCCESS } else { NOT_SUPPORTED };
    metric.value = value.unwrap_or_default();
    metric.metricInfo.shortName = std::ptr::null_mut();
    metric.metricInfo.longName = std::ptr::null_mut();
    metric.metricInfo.unit = std::ptr::null_mut();
}

/// What the state says of a metric, in percent.
const fn given(usage: Usage, metric: c_uint) -> Option<f64> {
    match metric {
        1 => Some(usage.graphics),
        2 => Some(usage.sm),
        3 => Some(usage.sm_occupancy),
        5 => Some(usage.tensor),
        10 => Some(usage.dram),
        11 => Some(usage.fp64),
        12 => Some(usage.fp32),
        13 => Some(usage.fp16),
        _ => None,
    }
}

/// What follows from how busy the device is: percent, and MiB per second.
fn guess(gpu: &Gpu, metric: c_uint) -> Option<f64> {
    let load = f64::from(busy(gpu.utilization.gpu));
    let memory = f64::from(busy(gpu.utilization.memory));
    let (sent, received) = gpu.nvlink.map_or((0, 0), |nvlink| nvlink.kib_per_second);
    #[expect(clippy::cast_precision_loss, reason = "a rate, not an amount")]
    let mib = |kib: u64| kib as f64 / 1024.0;
    match metric {
        1 => Some(load),
        2 => Some(load * 0.9),
        3 => Some(load * 0.5),
        5 | 13 => Some(load * 0.6),
        10 => Some(memory),
        11 | 12 => Some(load * 0.05),
        20 | 21 => Some(load * 4.0),
        60 => Some(mib(received)),
        61 => Some(mib(sent)),
        _ => None,
    }
}
