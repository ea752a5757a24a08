//! Errors of a GPU's SRAM: `nvmlDeviceGetSramEccErrorStatus`.

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::nvmlEccSramErrorStatus_v1_t;

use crate::{ExtError, checked, raw, symbol, version};

/// What was counted in the SRAM, on Ampere and later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SramErrors {
    /// Uncorrected since the driver was loaded.
    pub volatile_uncorrected: u64,
    /// Uncorrected in the board's life.
    pub aggregate_uncorrected: u64,
    /// Whether the driver says that these were too many: the board is to be replaced.
    pub threshold_exceeded: bool,
}

/// Asks a device for the errors of its SRAM.
///
/// # Errors
/// The driver's library lacks the call (before R550), or NVML answers with an error.
pub fn sram_errors(device: &Device<'_>) -> Result<SramErrors, ExtError> {
    const CALL: &str = "nvmlDeviceGetSramEccErrorStatus";
    let call = symbol(CALL, device.nvml().lib().nvmlDeviceGetSramEccErrorStatus.as_ref())?;
    let mut status = nvmlEccSramErrorStatus_v1_t {
        version: version::<nvmlEccSramErrorStatus_v1_t>(1),
        aggregateUncParity: 0,
        aggregateUncSecDed: 0,
        aggregateCor: 0,
        volatileUncParity: 0,
        volatileUncSecDed: 0,
        volatileCor: 0,
        aggregateUncBucketL2: 0,
        aggregateUncBucketSm: 0,
        aggregateUncBucketPcie: 0,
        aggregateUncBucketMcu: 0,
        aggregateUncBucketOther: 0,
        bThresholdExceeded: 0,
    };
    // SAFETY: the device is alive, and the structure is the one that its version field names.
    let code = unsafe { call(raw(device), &raw mut status) };
    checked(CALL, code)?;
    Ok(SramErrors {
        volatile_uncorrected: status.volatileUncParity + status.volatileUncSecDed,
        aggregate_uncorrected: status.aggregateUncParity + status.aggregateUncSecDed,
        threshold_exceeded: status.bThresholdExceeded != 0,
    })
}
