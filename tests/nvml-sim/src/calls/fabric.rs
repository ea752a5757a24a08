//! A device's place in an NVSwitch fabric, in the three forms that drivers have had.

use std::ffi::{c_uchar, c_uint};

use nvml_wrapper_sys::bindings as sys;
use sys::{
    nvmlDevice_t, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlGpuFabricInfoV_t, nvmlPlatformInfo_v1_t, nvmlPlatformInfo_v2_t, nvmlReturn_t,
};

use super::{put, version_at, version_of};
use crate::library::branch;
use crate::session::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, VERSION_OF_STRUCT, on_device};
use crate::state::{Fabric, Gpu};

/// The sixteen bytes that 32 digits name; zeros for anything else.
fn cluster(fabric: &Fabric) -> [c_uchar; 16] {
    let mut bytes = [0; 16];
    for (byte, digits) in bytes.iter_mut().zip(fabric.cluster_uuid.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = c_uchar::from_str_radix(digits, 16).unwrap_or_default();
    }
    bytes
}

fn fabric(gpu: &Gpu) -> Result<&Fabric, nvmlReturn_t> {
    gpu.fabric.as_ref().ok_or(NOT_SUPPORTED)
}

/// The first form: no version, no health.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo(
    device: nvmlDevice_t,
    out: *mut nvmlGpuFabricInfo_t,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetGpuFabricInfo", device, |gpu, _| fabric(gpu).cloned());
    let fabric = match answer {
        Ok(fabric) => fabric,
        Err(code) => return code,
    };
    // SAFETY: the caller passes a pointer to that structure, as nvml.h demands.
    let Some(out) = (unsafe { blank(out) }) else { return INVALID_ARGUMENT };
    out.clusterUuid = cluster(&fabric);
    out.status = fabric.status;
    out.cliqueId = fabric.clique_id;
    out.state = fabric.state;
    SUCCESS
}

/// A structure of zeros, to be filled field by field: some read more of it than its fields.
///
/// # Safety
///
/// `out` is null or points to memory that a `T` of plain numbers may be written to.
unsafe fn blank<'a, T>(out: *mut T) -> Option<&'a mut T> {
    if out.is_null() {
        return None;
    }
    // SAFETY: not null, numbers may be zero, and the caller vouches for the rest.
    unsafe {
        out.write_bytes(0, 1);
        Some(&mut *out)
    }
}

/// The second and the third form; a driver before 570 knows the second alone.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    out: *mut nvmlGpuFabricInfoV_t,
) -> nvmlReturn_t {
    const SECOND: c_uint = version_of::<nvmlGpuFabricInfo_v2_t>(2);
    const THIRD: c_uint = version_of::<nvmlGpuFabricInfo_v3_t>(3);
    // SAFETY: null, or the caller passes a structure whose version it has set.
    let version = match unsafe { version_at(out) } {
        Ok(version @ (SECOND | THIRD)) => version,
        Ok(_) => return VERSION_OF_STRUCT,
        Err(code) => return code,
    };
    let answer = on_device("nvmlDeviceGetGpuFabricInfoV", device, |gpu, state| {
        if version == THIRD && branch(&state.driver_version) < 570 {
            return Err(VERSION_OF_STRUCT);
        }
        fabric(gpu).cloned()
    });
    let fabric = match answer {
        Ok(fabric) => fabric,
        Err(code) => return code,
    };
    if version == THIRD {
        // SAFETY: the version says that the caller's structure is the third one.
        let Some(third) = (unsafe { blank(out.cast::<nvmlGpuFabricInfo_v3_t>()) }) else {
            return INVALID_ARGUMENT;
        };
        third.healthSummary = fabric.health_summary;
    }
    // What the two share lies where the second has it.
    let second = out.cast::<nvmlGpuFabricInfo_v2_t>();
    // SAFETY: not null, and both versions have at least this.
    let second = unsafe {
        if version == SECOND {
            second.write_bytes(0, 1);
        }
        &mut *second
    };
    second.version = version;
    second.clusterUuid = cluster(&fabric);
    second.status = fabric.status;
    second.cliqueId = fabric.clique_id;
    second.state = fabric.state;
    second.healthMask = fabric.health_mask;
    SUCCESS
}

/// Where in its rack a GPU sits: on Blackwell and later.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetPlatformInfo(
    device: nvmlDevice_t,
    out: *mut nvmlPlatformInfo_v2_t,
) -> nvmlReturn_t {
    const FIRST: c_uint = version_of::<nvmlPlatformInfo_v1_t>(1);
    const SECOND: c_uint = version_of::<nvmlPlatformInfo_v2_t>(2);
    // SAFETY: null, or the caller passes a structure whose version it has set.
    let version = match unsafe { version_at(out) } {
        Ok(version @ (FIRST | SECOND)) => version,
        Ok(_) => return VERSION_OF_STRUCT,
        Err(code) => return code,
    };
    let answer = on_device("nvmlDeviceGetPlatformInfo", device, |gpu, _| {
        let module = gpu.module_id.filter(|_| gpu.architecture >= 10).ok_or(NOT_SUPPORTED)?;
        // The two versions have the same layout under other names.
        Ok(nvmlPlatformInfo_v2_t {
            version,
            ibGuid: [0; 16],
            chassisSerialNumber: [0; 16],
            slotNumber: 1,
            trayIndex: 0,
            hostId: 1,
            peerType: 1,
            moduleId: c_uchar::try_from(module).unwrap_or_default(),
        })
    });
    // SAFETY: the version says that the caller's structure is one of the two.
    unsafe { put(out, answer) }
}
