//! Initialisation, versions, and the ways to a device.

use std::ffi::{c_char, c_int, c_uint, c_void};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use super::{code, put, put_text, take_text};
use crate::session::{INVALID_ARGUMENT, NOT_FOUND, check, enter, handle_of, initialize, shut_down};
use crate::state::Gpu;

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    code(initialize("nvmlInit_v2", 0))
}

/// The first version: what programs of long ago load.
#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlInit() -> nvmlReturn_t {
    code(initialize("nvmlInit_v2", 0))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlInitWithFlags(flags: c_uint) -> nvmlReturn_t {
    code(initialize("nvmlInitWithFlags", flags))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    code(shut_down())
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    let text = match result {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        8 => c"Insufficient External Power",
        10 => c"Timeout",
        11 => c"Interrupt Request Issue",
        12 => c"NVML Shared Library Not Found",
        13 => c"Function Not Found",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        17 => c"Operating System Call Failed",
        14 => c"Corrupted infoROM",
        18 => c"Driver/library version mismatch",
        19 => c"In use by another client",
        20 => c"Insufficient Memory",
        21 => c"No data",
        24 => c"GPU Not Found",
        25 => c"Invalid State",
        27 => c"Argument version mismatch",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetDriverVersion(
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    let version = enter("nvmlSystemGetDriverVersion").map(|state| state.driver_version.clone());
    // SAFETY: the caller passes a buffer of `length` bytes, as nvml.h demands.
    unsafe { put_text(out, length, version) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetNVMLVersion(
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    let version = enter("nvmlSystemGetNVMLVersion")
        .map(|state| format!("{}.{}", state.cuda_version / 1000, state.driver_version));
    // SAFETY: the caller passes a buffer of `length` bytes, as nvml.h demands.
    unsafe { put_text(out, length, version) }
}

/// Functions that programs of long ago load under a name without a version.
macro_rules! both {
    ($(($now:ident, $then:ident)($($argument:ident: $type:ty),*) = $answer:expr;)*) => {$(
        both!(@ $now($($argument: $type),*) = $answer);
        both!(@ $then($($argument: $type),*) = $answer);
    )*};
    (@ $name:ident($($argument:ident: $type:ty),*) = $answer:expr) => {
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name($($argument: $type),*) -> nvmlReturn_t {
            // SAFETY: the caller passes pointers to the types that nvml.h demands.
            unsafe { $answer(stringify!($name), $($argument),*) }
        }
    };
}

both! {
    (nvmlSystemGetCudaDriverVersion_v2, nvmlSystemGetCudaDriverVersion)(out: *mut c_int) = cuda;
    (nvmlDeviceGetCount_v2, nvmlDeviceGetCount)(out: *mut c_uint) = count;
    (nvmlDeviceGetHandleByIndex_v2, nvmlDeviceGetHandleByIndex)(
        index: c_uint, out: *mut nvmlDevice_t
    ) = by_index;
    (nvmlDeviceGetHandleByPciBusId_v2, nvmlDeviceGetHandleByPciBusId)(
        address: *const c_char, out: *mut nvmlDevice_t
    ) = by_address;
}

/// # Safety
///
/// As [`put`].
unsafe fn cuda(call: &str, out: *mut c_int) -> nvmlReturn_t {
    let version = enter(call).map(|state| state.cuda_version);
    // SAFETY: as the caller vouches.
    unsafe { put(out, version) }
}

/// # Safety
///
/// As [`put`].
unsafe fn count(call: &str, out: *mut c_uint) -> nvmlReturn_t {
    let count = enter(call).map(|state| {
        let real = c_uint::try_from(state.gpus.len()).unwrap_or(c_uint::MAX);
        state.faults.count.unwrap_or(real)
    });
    // SAFETY: as the caller vouches.
    unsafe { put(out, count) }
}

/// # Safety
///
/// As [`put`].
unsafe fn by_index(call: &str, index: c_uint, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    let handle = find(call, |position, _| position == index as usize)
        .map_err(|code| if code == NOT_FOUND { INVALID_ARGUMENT } else { code });
    // SAFETY: as the caller vouches.
    unsafe { put(out, handle) }
}

/// # Safety
///
/// As [`put`], and `address` is null or ends with a zero.
unsafe fn by_address(call: &str, address: *const c_char, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    // SAFETY: as the caller vouches.
    let address = unsafe { take_text(address) }.map(|text| short_address(&text));
    let handle =
        address.and_then(|address| find(call, |_, gpu| short_address(&gpu.pci) == address));
    // SAFETY: as the caller vouches.
    unsafe { put(out, handle) }
}

fn find(call: &str, wanted: impl Fn(usize, &Gpu) -> bool) -> Result<nvmlDevice_t, nvmlReturn_t> {
    let state = enter(call)?;
    let mut gpus = state.gpus.iter().enumerate();
    let (_, gpu) = gpus.find(|(index, gpu)| wanted(*index, gpu)).ok_or(NOT_FOUND)?;
    check(call, gpu)?;
    Ok(handle_of(&gpu.uuid))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetHandleByUUID(
    uuid: *const c_char,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    // SAFETY: the caller passes a zero-terminated text, as nvml.h demands.
    let uuid = unsafe { take_text(uuid) };
    let handle = uuid.and_then(|uuid| by_uuid(&uuid));
    // SAFETY: the caller passes a pointer to a device handle, as nvml.h demands.
    unsafe { put(out, handle) }
}

/// The handle of a device, or of a part of one.
fn by_uuid(uuid: &str) -> Result<nvmlDevice_t, nvmlReturn_t> {
    let is_part = |gpu: &Gpu| gpu.mig_devices.iter().any(|part| part.uuid == uuid);
    find("nvmlDeviceGetHandleByUUID", |_, gpu| gpu.uuid == uuid || is_part(gpu))?;
    Ok(handle_of(uuid))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetHandleBySerial(
    serial: *const c_char,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    // SAFETY: the caller passes a zero-terminated text, as nvml.h demands.
    let serial = unsafe { take_text(serial) };
    let handle = serial
        .and_then(|serial| find("nvmlDeviceGetHandleBySerial", |_, gpu| gpu.serial == serial));
    // SAFETY: the caller passes a pointer to a device handle, as nvml.h demands.
    unsafe { put(out, handle) }
}

/// An address without leading zeros in its domain, in lower case: programs write 4 or 8 digits.
fn short_address(address: &str) -> String {
    address.to_ascii_lowercase().trim_start_matches('0').to_owned()
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetProcessName(
    pid: c_uint,
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    let name = enter("nvmlSystemGetProcessName").and_then(|state| {
        let mut processes = state.gpus.iter().flat_map(|gpu| &gpu.processes);
        let process = processes.find(|process| process.pid == pid).ok_or(NOT_FOUND)?;
        // What does not fit is cut, unlike any other text.
        let room = (length as usize).saturating_sub(1).min(process.name.len());
        Ok(process.name[..process.name.floor_char_boundary(room)].to_owned())
    });
    // SAFETY: the caller passes a buffer of `length` bytes, as nvml.h demands.
    unsafe { put_text(out, length, name) }
}

/// Functions that count what a node of EC2 never has.
macro_rules! none {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(out: *mut c_uint) -> nvmlReturn_t {
            let count = enter(stringify!($name)).map(|_| 0);
            // SAFETY: the caller passes a pointer to an unsigned int, as nvml.h demands.
            unsafe { put(out, count) }
        }
    )*};
}

none! { nvmlUnitGetCount nvmlGetExcludedDeviceCount }

/// NVIDIA's own programs ask for a table of private functions first. Such a table begins with its
/// size, and theirs look at it before each use: this one holds nothing but that.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlInternalGetExportTable(
    out: *mut *const c_void,
    _table: *const c_void,
) -> nvmlReturn_t {
    static EMPTY: usize = size_of::<usize>();
    // SAFETY: the caller passes a pointer to a pointer.
    unsafe { put(out, Ok((&raw const EMPTY).cast())) }
}
