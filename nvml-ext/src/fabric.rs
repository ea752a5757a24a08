//! A GPU's place in an NVSwitch fabric: `nvmlDeviceGetGpuFabricInfoV`, and what came before it.

use std::ffi::c_uint;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{
    self as sys, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
};

use crate::{ExtError, checked, raw, symbol, version};

const VERSIONED: &str = "nvmlDeviceGetGpuFabricInfoV";
const FIRST: &str = "nvmlDeviceGetGpuFabricInfo";

/// What a GPU says of its fabric, on Hopper and later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricInfo {
    /// How far the registration is.
    pub state: FabricState,
    /// How a completed registration ended: none is success.
    pub error: Option<String>,
    /// The cluster that the GPU was registered in.
    pub cluster_uuid: [u8; 16],
    /// The GPUs of one clique reach each other.
    pub clique_id: u32,
    /// Health in fields of two and four bits; 0 where the driver does not tell.
    pub health_mask: u32,
    /// What the driver makes of the mask.
    pub health_summary: HealthSummary,
}

/// How far the registration of a GPU with its fabric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FabricState {
    /// The GPU is in no fabric.
    NotSupported,
    /// The fabric manager has not come to it yet.
    NotStarted,
    /// It is being registered.
    InProgress,
    /// It is registered, with success or with an error.
    Completed,
    /// A number that this code does not know.
    Other(u32),
}

impl FabricState {
    /// NVML's number of the state.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::NotSupported => sys::NVML_GPU_FABRIC_STATE_NOT_SUPPORTED,
            Self::NotStarted => sys::NVML_GPU_FABRIC_STATE_NOT_STARTED,
            Self::InProgress => sys::NVML_GPU_FABRIC_STATE_IN_PROGRESS,
            Self::Completed => sys::NVML_GPU_FABRIC_STATE_COMPLETED,
            Self::Other(number) => number,
        }
    }
}

/// What the driver makes of a fabric's health, from R570 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthSummary {
    /// The driver is older, or does not say.
    Unknown,
    /// All is well.
    Healthy,
    /// Something is not.
    Unhealthy,
    /// It works with less than it should have.
    LimitedCapacity,
}

/// Asks a device for its fabric: in the newest form that its driver knows.
///
/// # Errors
/// The driver's library lacks every form of the call, or NVML answers with an error.
pub fn fabric_info(device: &Device<'_>) -> Result<FabricInfo, ExtError> {
    match third(device) {
        Err(ExtError::SymbolAbsent(_)) => first(device),
        other => other,
    }
}

fn third(device: &Device<'_>) -> Result<FabricInfo, ExtError> {
    let call = symbol(VERSIONED, device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    let mut info = nvmlGpuFabricInfo_v3_t {
        version: version::<nvmlGpuFabricInfo_v3_t>(3),
        clusterUuid: [0; 16],
        status: sys::nvmlReturn_enum_NVML_SUCCESS,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
        healthSummary: 0,
    };
    // SAFETY: the device is alive, and the structure is the one that its version field names.
    let code = unsafe { call(raw(device), &raw mut info) };
    if code == sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH {
        return second(device);
    }
    checked(VERSIONED, code)?;
    Ok(FabricInfo {
        state: state(info.state.into()),
        error: failure(info.status),
        cluster_uuid: info.clusterUuid,
        clique_id: info.cliqueId,
        health_mask: info.healthMask,
        health_summary: match info.healthSummary.into() {
            sys::NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY => HealthSummary::Healthy,
            sys::NVML_GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY => HealthSummary::Unhealthy,
            sys::NVML_GPU_FABRIC_HEALTH_SUMMARY_LIMITED_CAPACITY => HealthSummary::LimitedCapacity,
            _ => HealthSummary::Unknown,
        },
    })
}

/// What drivers between 550 and 570 know.
fn second(device: &Device<'_>) -> Result<FabricInfo, ExtError> {
    let call = symbol(VERSIONED, device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    let mut info = nvmlGpuFabricInfo_v2_t {
        version: version::<nvmlGpuFabricInfo_v2_t>(2),
        clusterUuid: [0; 16],
        status: sys::nvmlReturn_enum_NVML_SUCCESS,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
    };
    // SAFETY: the device is alive, and NVML fills the structure that its version field names.
    let code = unsafe { call(raw(device), (&raw mut info).cast()) };
    checked(VERSIONED, code)?;
    Ok(FabricInfo {
        state: state(info.state.into()),
        error: failure(info.status),
        cluster_uuid: info.clusterUuid,
        clique_id: info.cliqueId,
        health_mask: info.healthMask,
        health_summary: HealthSummary::Unknown,
    })
}

/// What drivers before 550 know.
fn first(device: &Device<'_>) -> Result<FabricInfo, ExtError> {
    let call = symbol(FIRST, device.nvml().lib().nvmlDeviceGetGpuFabricInfo.as_ref())?;
    let mut info = nvmlGpuFabricInfo_t {
        clusterUuid: [0; 16],
        status: sys::nvmlReturn_enum_NVML_SUCCESS,
        cliqueId: 0,
        state: 0,
    };
    // SAFETY: the device is alive, and the structure is the one of this call.
    let code = unsafe { call(raw(device), &raw mut info) };
    checked(FIRST, code)?;
    Ok(FabricInfo {
        state: state(info.state.into()),
        error: failure(info.status),
        cluster_uuid: info.clusterUuid,
        clique_id: info.cliqueId,
        health_mask: 0,
        health_summary: HealthSummary::Unknown,
    })
}

fn failure(status: c_uint) -> Option<String> {
    let failed = status != sys::nvmlReturn_enum_NVML_SUCCESS;
    failed.then(|| NvmlError::from(status).to_string())
}

const fn state(number: u32) -> FabricState {
    match number {
        sys::NVML_GPU_FABRIC_STATE_NOT_SUPPORTED => FabricState::NotSupported,
        sys::NVML_GPU_FABRIC_STATE_NOT_STARTED => FabricState::NotStarted,
        sys::NVML_GPU_FABRIC_STATE_IN_PROGRESS => FabricState::InProgress,
        sys::NVML_GPU_FABRIC_STATE_COMPLETED => FabricState::Completed,
        other => FabricState::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_of_nvml() {
        assert_eq!(state(3), FabricState::Completed);
        assert_eq!(state(1), FabricState::NotStarted);
        assert_eq!(state(9), FabricState::Other(9));
        assert!((0..6).all(|number| state(number).number() == number));
    }
}
