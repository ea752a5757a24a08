//! A GPU's place in an NVSwitch fabric: `nvmlDeviceGetGpuFabricInfoV`.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{self as sys, nvmlGpuFabricInfoV_t};

use crate::{ExtError, checked, raw, symbol};

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

/// Asks a device for its fabric.
///
/// # Errors
/// The driver's library lacks the call, or NVML answers with an error.
pub fn fabric_info(device: &Device<'_>) -> Result<FabricInfo, ExtError> {
    const CALL: &str = "nvmlDeviceGetGpuFabricInfoV";
    #[expect(clippy::cast_possible_truncation, reason = "the size of a small structure")]
    const VERSION: u32 = size_of::<nvmlGpuFabricInfoV_t>() as u32 | (3 << 24);
    let call = symbol(CALL, device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    let mut info = nvmlGpuFabricInfoV_t {
        version: VERSION,
        clusterUuid: [0; 16],
        status: sys::nvmlReturn_enum_NVML_SUCCESS,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
        healthSummary: 0,
    };
    // SAFETY: the device is alive, and the structure is the one that its version field names.
    let code = unsafe { call(raw(device), &raw mut info) };
    checked(CALL, code)?;
    let failed = info.status != sys::nvmlReturn_enum_NVML_SUCCESS;
    Ok(FabricInfo {
        state: state(info.state.into()),
        error: failed.then(|| NvmlError::from(info.status).to_string()),
        cluster_uuid: info.clusterUuid,
        clique_id: info.cliqueId,
        health_mask: info.healthMask,
    })
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
