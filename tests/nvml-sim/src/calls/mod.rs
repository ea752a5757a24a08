//! The C functions of `nvml.h`, and the few of `cuda.h`, that this double answers, and how values cross that boundary.
//!
//! Each function does three things: it enters the call ([`crate::session`]), computes its answer
//! from the state in safe code, and writes it where the caller points.

#![expect(unsafe_code, reason = "this is a C library: its callers pass raw pointers")]

mod cuda;
mod device;
mod events;
mod fabric;
mod fields;
mod gpm;
mod link;
mod memory;
mod mig;
mod processes;
mod shapes;
#[cfg(test)]
mod signatures;
mod system;
mod unsupported;

use std::ffi::{CStr, OsStr, c_char, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::libc;
use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::session::{INSUFFICIENT_SIZE, INVALID_ARGUMENT, SUCCESS};

/// The code of an outcome without a value.
fn code(outcome: Result<(), nvmlReturn_t>) -> nvmlReturn_t {
    outcome.err().unwrap_or(SUCCESS)
}

/// Writes an answer where the caller wants it.
///
/// # Safety
///
/// `out` is null or points to memory that a `T` may be written to.
unsafe fn put<T>(out: *mut T, answer: Result<T, nvmlReturn_t>) -> nvmlReturn_t {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    match answer {
        Ok(value) => {
            // SAFETY: not null, and the caller vouches for the rest.
            unsafe { out.write(value) };
            SUCCESS
        }
        Err(code) => code,
    }
}

/// Writes two answers where the caller wants them.
///
/// # Safety
///
/// As [`put`] for both.
unsafe fn put_pair<A, B>(
    first: *mut A,
    second: *mut B,
    answer: Result<(A, B), nvmlReturn_t>,
) -> nvmlReturn_t {
    if first.is_null() || second.is_null() {
        return INVALID_ARGUMENT;
    }
    match answer {
        Ok((a, b)) => {
            // SAFETY: not null, and the caller vouches for the rest.
            unsafe {
                first.write(a);
                second.write(b);
            }
            SUCCESS
        }
        Err(code) => code,
    }
}

/// Writes a text with its closing zero.
///
/// # Safety
///
/// `out` is null or points to `length` writable bytes.
unsafe fn put_text(
    out: *mut c_char,
    length: c_uint,
    text: Result<String, nvmlReturn_t>,
) -> nvmlReturn_t {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    let text = match text {
        Ok(text) => text,
        Err(code) => return code,
    };
    // SAFETY: as the caller vouches.
    unsafe { put_bytes(out, length, text.as_bytes()) }
}

/// Writes bytes that may be no text, with a closing zero.
///
/// # Safety
///
/// `out` points to `length` writable bytes.
unsafe fn put_bytes(out: *mut c_char, length: c_uint, bytes: &[u8]) -> nvmlReturn_t {
    if bytes.len() >= length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the bytes and their zero fit into the `length` bytes that the caller vouches for.
    unsafe {
        out.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        out.add(bytes.len()).write(0);
    }
    SUCCESS
}

/// Writes bytes that are no UTF-8, as a broken info ROM gives them.
///
/// # Safety
///
/// `out` is null or points to `length` writable bytes.
unsafe fn put_garbage(out: *mut c_char, length: c_uint) -> nvmlReturn_t {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { put_bytes(out, length, b"\xff\xfeH1\x8000\xc3\x28") }
}

/// Writes as many of `values` as fit into `*count`, and how many there are into it.
///
/// # Safety
///
/// `count` is null or points to the number of elements that `out` has room for; `out` may be null
/// when that is 0.
unsafe fn put_list<T>(
    count: *mut c_uint,
    out: *mut T,
    values: Result<Vec<T>, nvmlReturn_t>,
) -> nvmlReturn_t {
    if count.is_null() {
        return INVALID_ARGUMENT;
    }
    let values = match values {
        Ok(values) => values,
        Err(code) => return code,
    };
    // SAFETY: not null, and the caller vouches for the rest.
    let room = unsafe { count.read() } as usize;
    // SAFETY: as above.
    unsafe { count.write(c_uint::try_from(values.len()).unwrap_or(c_uint::MAX)) };
    if values.len() > room {
        return INSUFFICIENT_SIZE;
    }
    if out.is_null() && !values.is_empty() {
        return INVALID_ARGUMENT;
    }
    for (index, value) in values.into_iter().enumerate() {
        // SAFETY: the index is below the room that the caller vouches for.
        unsafe { out.add(index).write(value) };
    }
    SUCCESS
}

/// The version word that a caller must have set: the structure's size, and its version above it.
#[expect(clippy::cast_possible_truncation, reason = "the size of a small structure")]
const fn version_of<T>(version: c_uint) -> c_uint {
    size_of::<T>() as c_uint | (version << 24)
}

/// Reads the version word at the beginning of a structure.
///
/// # Safety
///
/// `out` is null or points to a structure that begins with its version.
unsafe fn version_at<T>(out: *const T) -> Result<c_uint, nvmlReturn_t> {
    if out.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller vouches for the rest.
    Ok(unsafe { out.cast::<c_uint>().read() })
}

/// Reads a text that the caller passes.
///
/// # Safety
///
/// `text` is null or points to bytes that end with a zero.
unsafe fn take_text(text: *const c_char) -> Result<String, nvmlReturn_t> {
    if text.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller vouches for the closing zero.
    Ok(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Fills a C array of characters, cutting what does not fit.
fn fill(array: &mut [c_char], text: &str) {
    let Some(room) = array.len().checked_sub(1) else { return };
    array.fill(0);
    for (slot, byte) in array[..room].iter_mut().zip(text.bytes()) {
        *slot = byte.cast_signed();
    }
}

/// Where this library was loaded from.
pub(crate) fn own_path() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let inside = own_path as fn() -> Option<PathBuf> as *const c_void;
    // SAFETY: `inside` is an address in this library, and `info` may be written to.
    let found = unsafe { libc::dladdr(inside, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr succeeded, so the name is a string that lives as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    std::path::absolute(OsStr::from_bytes(name.to_bytes())).ok()
}
