//! Rows of memory that spare ones replaced: `nvmlDeviceGetRemappedRows`, and how many spare ones
//! are left: `nvmlDeviceGetRowRemapperHistogram`.

use std::ffi::c_uint;

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::nvmlRowRemapperHistogramValues_t;

use crate::{ExtError, checked, raw, symbol};

/// What the row remapper did, on Ampere and later with HBM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemappedRows {
    /// Rows remapped for correctable errors.
    pub correctable: u32,
    /// Rows remapped for uncorrectable errors.
    pub uncorrectable: u32,
    /// Whether a remapping waits for a reset of the GPU.
    pub pending: bool,
    /// Whether a remapping has failed: the bank has no spare rows left.
    pub failed: bool,
}

/// Asks a device for its remapped rows.
///
/// # Errors
/// The driver's library lacks the call, or NVML answers with an error.
pub fn remapped_rows(device: &Device<'_>) -> Result<RemappedRows, ExtError> {
    const CALL: &str = "nvmlDeviceGetRemappedRows";
    let call = symbol(CALL, device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let [mut correctable, mut uncorrectable, mut pending, mut failed]: [c_uint; 4] = [0; 4];
    // SAFETY: the device is alive, and the four pointers are to unsigned ints of this frame.
    let code = unsafe {
        call(
            raw(device),
            &raw mut correctable,
            &raw mut uncorrectable,
            &raw mut pending,
            &raw mut failed,
        )
    };
    checked(CALL, code)?;
    Ok(RemappedRows { correctable, uncorrectable, pending: pending != 0, failed: failed != 0 })
}

/// Banks of memory by how many of their spare rows are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemapperBanks {
    /// All.
    pub max: u32,
    /// Most.
    pub high: u32,
    /// Some.
    pub partial: u32,
    /// One.
    pub low: u32,
    /// None: the next error there cannot be mended.
    pub none: u32,
}

/// Asks a device how many spare rows its banks have.
///
/// # Errors
/// The driver's library lacks the call, or NVML answers with an error.
pub fn row_remapper_histogram(device: &Device<'_>) -> Result<RemapperBanks, ExtError> {
    const CALL: &str = "nvmlDeviceGetRowRemapperHistogram";
    let call = symbol(CALL, device.nvml().lib().nvmlDeviceGetRowRemapperHistogram.as_ref())?;
    let mut banks =
        nvmlRowRemapperHistogramValues_t { max: 0, high: 0, partial: 0, low: 0, none: 0 };
    // SAFETY: the device is alive, and the pointer is to a structure of this frame.
    let code = unsafe { call(raw(device), &raw mut banks) };
    checked(CALL, code)?;
    let nvmlRowRemapperHistogramValues_t { max, high, partial, low, none } = banks;
    Ok(RemapperBanks { max, high, partial, low, none })
}
