//! A GPU's place on its baseboard: `nvmlDeviceGetModuleId`.

use std::ffi::c_uint;

use nvml_wrapper::Device;

use crate::{ExtError, checked, raw, symbol};

/// Asks a device for its number on the baseboard, which starts at 1 and, unlike NVML's index, stays
/// with the socket when another GPU is missing.
///
/// # Errors
/// The driver's library lacks the call, or NVML answers with an error: only boards with NVSwitches
/// have such numbers.
pub fn module_id(device: &Device<'_>) -> Result<u32, ExtError> {
    const CALL: &str = "nvmlDeviceGetModuleId";
    let call = symbol(CALL, device.nvml().lib().nvmlDeviceGetModuleId.as_ref())?;
    let mut number: c_uint = 0;
    // SAFETY: the device is alive, and the pointer is to an unsigned int of this frame.
    let code = unsafe { call(raw(device), &raw mut number) };
    checked(CALL, code)?;
    Ok(number)
}
