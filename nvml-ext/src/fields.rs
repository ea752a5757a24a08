//! Field values with a scope: nvml-wrapper asks for scope 0 only, which of NVLink counters is the
//! first link alone.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{self as sys, nvmlFieldValue_t, nvmlValue_t};

use crate::{ExtError, checked, raw, symbol};

/// The scope that means all links of a GPU together.
pub const ALL_LINKS: u32 = u32::MAX;

/// A field's value, widened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldValue {
    /// Counts, flags, sizes.
    Unsigned(u64),
    /// Values that may be below zero.
    Signed(i64),
    /// Fractions.
    Float(f64),
}

impl FieldValue {
    /// The value where it is a count.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => value.try_into().ok(),
            Self::Float(_) => None,
        }
    }

    /// The value where it is a whole number.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Self::Unsigned(value) => value.try_into().ok(),
            Self::Signed(value) => Some(value),
            Self::Float(_) => None,
        }
    }
}

/// Asks a device for fields, each `(id, scope)`, in one call; an answer per field, in order.
///
/// The ids 251 to 273, which changed their meaning between drivers, are not translated here: ask
/// for those through nvml-wrapper.
///
/// # Errors
/// The driver's library lacks the call, or NVML refuses it as a whole.
pub fn field_values(
    device: &Device<'_>,
    fields: &[(u32, u32)],
) -> Result<Vec<Result<FieldValue, NvmlError>>, ExtError> {
    const CALL: &str = "nvmlDeviceGetFieldValues";
    let call = symbol(CALL, device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let mut values: Vec<nvmlFieldValue_t> = fields.iter().map(|field| request(*field)).collect();
    let Ok(count) = i32::try_from(values.len()) else {
        return Err(ExtError::Nvml { call: CALL, source: NvmlError::InvalidArg });
    };
    // SAFETY: the device is alive, and the pointer is to `count` initialised values.
    let code = unsafe { call(raw(device), count, values.as_mut_ptr()) };
    checked(CALL, code)?;
    Ok(values.iter().map(read).collect())
}

/// What the driver asks for: `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`, from R570 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryAction {
    /// Nothing.
    None,
    /// A reset of the GPU.
    Reset,
    /// A reboot of the node.
    Reboot,
    /// An end of all traffic between GPUs.
    DrainPeers,
    /// That, and a reset then.
    DrainAndReset,
    /// A number that this code does not know.
    Other(u64),
}

/// Asks a device for what its driver asks for.
///
/// # Errors
/// The driver's library lacks the call or does not know the field, or NVML answers with an error.
pub fn recovery_action(device: &Device<'_>) -> Result<RecoveryAction, ExtError> {
    const FIELD: u32 = 230;
    const CALL: &str = "nvmlDeviceGetFieldValues";
    let answer = field_values(device, &[(FIELD, 0)])?.into_iter().next();
    let value = answer.unwrap_or(Err(NvmlError::NotSupported));
    let value = value.map_err(|source| ExtError::Nvml { call: CALL, source })?;
    match value.as_u64() {
        Some(number) => Ok(action(number)),
        None => Err(ExtError::Nvml { call: CALL, source: NvmlError::UnexpectedVariant(FIELD) }),
    }
}

const fn action(number: u64) -> RecoveryAction {
    match number {
        0 => RecoveryAction::None,
        1 => RecoveryAction::Reset,
        2 => RecoveryAction::Reboot,
        3 => RecoveryAction::DrainPeers,
        4 => RecoveryAction::DrainAndReset,
        other => RecoveryAction::Other(other),
    }
}

fn request((id, scope): (u32, u32)) -> nvmlFieldValue_t {
    nvmlFieldValue_t {
        fieldId: id,
        scopeId: scope,
        timestamp: 0,
        latencyUsec: 0,
        valueType: 0,
        nvmlReturn: sys::nvmlReturn_enum_NVML_SUCCESS,
        value: nvmlValue_t { ullVal: 0 },
    }
}

fn read(field: &nvmlFieldValue_t) -> Result<FieldValue, NvmlError> {
    if field.nvmlReturn != sys::nvmlReturn_enum_NVML_SUCCESS {
        return Err(field.nvmlReturn.into());
    }
    // SAFETY: every member of the union is plain numbers, all of its bytes were initialised by
    // `request`, and the type says which member NVML wrote.
    unsafe {
        match field.valueType {
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE => {
                Ok(FieldValue::Float(field.value.dVal))
            }
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => {
                Ok(FieldValue::Unsigned(field.value.uiVal.into()))
            }
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG
            | sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => {
                Ok(FieldValue::Unsigned(field.value.ullVal))
            }
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => {
                Ok(FieldValue::Signed(field.value.sllVal))
            }
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => {
                Ok(FieldValue::Signed(field.value.siVal.into()))
            }
            other => Err(NvmlError::UnexpectedVariant(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_their_type() {
        let mut field = request((138, ALL_LINKS));
        field.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
        field.value.uiVal = 7;
        assert_eq!(read(&field).unwrap(), FieldValue::Unsigned(7));
        field.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT;
        field.value.siVal = -7;
        assert_eq!(read(&field).unwrap(), FieldValue::Signed(-7));
        assert_eq!(read(&field).unwrap().as_u64(), None);
        field.nvmlReturn = sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
        assert!(matches!(read(&field), Err(NvmlError::NotSupported)));
        field.nvmlReturn = 0;
        field.valueType = 99;
        assert!(matches!(read(&field), Err(NvmlError::UnexpectedVariant(99))));
    }
}
