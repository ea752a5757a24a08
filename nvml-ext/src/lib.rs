//! The few NVML calls that nvml-wrapper lacks, and [`cuda`]'s, behind a safe API: the only `unsafe` in
//! the products.
//!
//! Every NVML call takes a [`Device`] of nvml-wrapper and may find that the driver's library has no such
//! symbol: older drivers lack the later calls. That is [`ExtError::SymbolAbsent`], a value like any
//! other, never a failure to load the library.

#![expect(unsafe_code, reason = "NVML and CUDA are C libraries")]

pub mod cuda;
mod fabric;
mod fields;
mod module_id;
mod remapped_rows;
mod sram;
mod temperature;

pub use fabric::{FabricInfo, FabricState, HealthSummary, fabric_info};
pub use fields::{ALL_LINKS, FieldValue, RecoveryAction, field_values, recovery_action};
pub use module_id::module_id;
pub use remapped_rows::{RemappedRows, RemapperBanks, remapped_rows, row_remapper_histogram};
pub use sram::{SramErrors, sram_errors};
pub use temperature::margin_temperature;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{self as sys, nvmlDevice_t, nvmlReturn_t};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExtError {
    /// The driver's library is older than the call.
    #[error("this driver's library has no `{0}`")]
    SymbolAbsent(&'static str),
    /// NVML answered with an error.
    #[error("`{call}` failed")]
    Nvml {
        /// The call.
        call: &'static str,
        /// What NVML said.
        #[source]
        source: NvmlError,
    },
}

impl ExtError {
    /// Whether the device or its driver does not have the feature at all.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Self::SymbolAbsent(_) | Self::Nvml { source: NvmlError::NotSupported, .. })
    }
}

/// Makes an error of a return code.
fn checked(call: &'static str, code: nvmlReturn_t) -> Result<(), ExtError> {
    if code == sys::nvmlReturn_enum_NVML_SUCCESS {
        Ok(())
    } else {
        Err(ExtError::Nvml { call, source: code.into() })
    }
}

/// A symbol of the library, or that it is absent. libloading's own error says no more than that.
fn symbol<'a, T, E>(call: &'static str, symbol: Result<&'a T, E>) -> Result<&'a T, ExtError> {
    symbol.map_err(|_| ExtError::SymbolAbsent(call))
}

/// The version word that NVML wants in a structure: its size, and its version above it.
#[expect(clippy::cast_possible_truncation, reason = "the size of a small structure")]
const fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | (number << 24)
}

fn raw(device: &Device<'_>) -> nvmlDevice_t {
    // SAFETY: the handle is only passed to NVML calls of the library that the device came from,
    // within the device's lifetime.
    unsafe { device.handle() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_symbol_is_a_missing_feature() {
        let absent: Result<&(), &str> = Err("undefined symbol");
        let error = symbol("nvmlDeviceGetGpuFabricInfoV", absent).unwrap_err();
        assert!(error.is_unsupported());
        assert_eq!(error.to_string(), "this driver's library has no `nvmlDeviceGetGpuFabricInfoV`");
        assert!(
            checked("x", sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)
                .unwrap_err()
                .is_unsupported()
        );
        assert!(
            !checked("x", sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST)
                .unwrap_err()
                .is_unsupported()
        );
        assert!(checked("x", sys::nvmlReturn_enum_NVML_SUCCESS).is_ok());
    }
}
