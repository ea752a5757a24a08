//! How far a GPU is from its thermal limit: `nvmlDeviceGetMarginTemperature`.

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::nvmlMarginTemperature_v1_t;

use crate::{ExtError, checked, raw, symbol, version};

/// Degrees that are left until the GPU's highest operating temperature; below zero beyond it.
///
/// # Errors
/// The driver's library lacks the call, or NVML answers with an error: GPUs before Hopper do not know it.
pub fn margin_temperature(device: &Device<'_>) -> Result<i32, ExtError> {
    const CALL: &str = "nvmlDeviceGetMarginTemperature";
    let call = symbol(CALL, device.nvml().lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    let mut margin = nvmlMarginTemperature_v1_t {
        version: version::<nvmlMarginTemperature_v1_t>(1),
        marginTemperature: 0,
    };
    // SAFETY: the device is alive, and the pointer is to a structure of this frame that says its version.
    let code = unsafe { call(raw(device), &raw mut margin) };
    checked(CALL, code)?;
    Ok(margin.marginTemperature)
}
