//! The few functions of `libcuda.so.1` that a program needs to see whether a GPU computes. The same
//! file stands in for both libraries, with the same GPUs and the same faults; a GPU's memory is this
//! process's.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{fill, put};
use crate::session::{check, enter_cuda};
use crate::state::{Gpu, State};

/// `CUresult`.
type Status = c_uint;
const SUCCESS: Status = 0;
const INVALID_VALUE: Status = 1;
const NOT_INITIALIZED: Status = 3;
const NO_DEVICE: Status = 100;
const INVALID_DEVICE: Status = 101;
const INVALID_CONTEXT: Status = 201;
const ECC_UNCORRECTABLE: Status = 214;
const LAUNCH_FAILED: Status = 719;
const SYSTEM_NOT_READY: Status = 802;
const DRIVER_MISMATCH: Status = 803;
const UNKNOWN: Status = 999;

/// The state of a fabric that a GPU is part of.
const FABRIC_COMPLETED: u8 = 3;
/// Addresses of a GPU's memory begin here: none is one of the host's by accident.
const FIRST_ADDRESS: u64 = 0x7f00_0000_0000;
const BETWEEN: u64 = 1 << 40;

static INITIALIZED: AtomicBool = AtomicBool::new(false);
static CONTEXT: Mutex<Context> = Mutex::new(Context { device: None, memory: Vec::new() });

/// The one context that a process has at a time.
struct Context {
    device: Option<c_int>,
    memory: Vec<Vec<u8>>,
}

fn context() -> MutexGuard<'static, Context> {
    CONTEXT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn code(outcome: Result<(), Status>) -> Status {
    outcome.err().unwrap_or(SUCCESS)
}

fn enter(call: &str) -> Result<Arc<State>, Status> {
    if !INITIALIZED.load(Ordering::SeqCst) {
        return Err(NOT_INITIALIZED);
    }
    enter_cuda(call).map_err(|code| code.unwrap_or(NO_DEVICE))
}

/// What GPUs are there, without those that are gone.
fn gpu(state: &State, device: c_int) -> Result<&Gpu, Status> {
    let index = usize::try_from(device).map_err(|_| INVALID_DEVICE)?;
    state.gpus.get(index).ok_or(INVALID_DEVICE)
}

/// Begins a call on the GPU of the context.
fn on_context(call: &str) -> Result<(Arc<State>, usize), Status> {
    let state = enter(call)?;
    let device = context().device.ok_or(INVALID_CONTEXT)?;
    let one = gpu(&state, device)?;
    check(call, one).map_err(|_| LAUNCH_FAILED)?;
    if one.ecc.is_some_and(|ecc| ecc.enabled && ecc.volatile_uncorrected > 0) {
        return Err(ECC_UNCORRECTABLE);
    }
    Ok((state, usize::try_from(device).unwrap_or_default()))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn cuInit(_flags: c_uint) -> Status {
    let begun = enter_cuda("cuInit").map_err(|code| code.unwrap_or(NO_DEVICE));
    code(begun.and_then(|state| {
        let waits = |gpu: &Gpu| gpu.fabric.as_ref().is_some_and(|f| f.state != FABRIC_COMPLETED);
        if !state.module_loaded || state.gpus.is_empty() {
            Err(NO_DEVICE)
        } else if state.module_version() != state.driver_version {
            Err(DRIVER_MISMATCH)
        } else if state.gpus.iter().any(waits) {
            Err(SYSTEM_NOT_READY)
        } else {
            INITIALIZED.store(true, Ordering::SeqCst);
            Ok(())
        }
    }))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDeviceGetCount(out: *mut c_int) -> Status {
    let count = enter("cuDeviceGetCount")
        .map(|state| c_int::try_from(state.gpus.len()).unwrap_or(c_int::MAX));
    // SAFETY: the caller passes a pointer to an int, as cuda.h demands.
    unsafe { put(out, count) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDeviceGet(out: *mut c_int, ordinal: c_int) -> Status {
    let device = enter("cuDeviceGet").and_then(|state| gpu(&state, ordinal).map(|_| ordinal));
    // SAFETY: the caller passes a pointer to an int, as cuda.h demands.
    unsafe { put(out, device) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDeviceGetPCIBusId(
    out: *mut c_char,
    length: c_int,
    device: c_int,
) -> Status {
    let Ok(room) = usize::try_from(length) else { return INVALID_VALUE };
    if out.is_null() || room == 0 {
        return INVALID_VALUE;
    }
    let address = enter("cuDeviceGetPCIBusId")
        .and_then(|state| gpu(&state, device).map(|gpu| gpu.pci.to_uppercase()));
    match address {
        Ok(address) => {
            // SAFETY: the caller passes a buffer of `length` bytes, as cuda.h demands.
            fill(unsafe { std::slice::from_raw_parts_mut(out, room) }, &address);
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuCtxCreate_v2(
    out: *mut *mut c_void,
    _flags: c_uint,
    device: c_int,
) -> Status {
    let made = enter("cuCtxCreate_v2").and_then(|state| {
        check("cuCtxCreate_v2", gpu(&state, device)?).map_err(|_| UNKNOWN)?;
        *context() = Context { device: Some(device), memory: Vec::new() };
        Ok(std::ptr::without_provenance_mut(1))
    });
    // SAFETY: the caller passes a pointer to a context, as cuda.h demands.
    unsafe { put(out, made) }
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn cuCtxDestroy_v2(_context: *mut c_void) -> Status {
    code(
        enter("cuCtxDestroy_v2").map(|_| *context() = Context { device: None, memory: Vec::new() }),
    )
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn cuCtxSynchronize() -> Status {
    code(on_context("cuCtxSynchronize").map(drop))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemAlloc_v2(out: *mut u64, bytes: usize) -> Status {
    let place = on_context("cuMemAlloc_v2").map(|_| {
        let memory = &mut context().memory;
        memory.push(vec![0; bytes]);
        FIRST_ADDRESS + BETWEEN * (memory.len() as u64 - 1)
    });
    // SAFETY: the caller passes a pointer to a device pointer, as cuda.h demands.
    unsafe { put(out, place) }
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn cuMemsetD32_v2(to: u64, value: c_uint, words: usize) -> Status {
    code(on_context("cuMemsetD32_v2").and_then(|_| {
        with_memory(to, words * size_of::<c_uint>(), |bytes| {
            bytes.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&value.to_ne_bytes()));
        })
    }))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemcpyHtoD_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
) -> Status {
    if from.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller passes a pointer to so many bytes, as cuda.h demands.
    let given = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) };
    code(
        on_context("cuMemcpyHtoD_v2")
            .and_then(|_| with_memory(to, bytes, |memory| memory.copy_from_slice(given))),
    )
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> Status {
    code(on_context("cuMemcpyDtoD_v2").and_then(|_| {
        let mut copied = Vec::new();
        with_memory(from, bytes, |memory| copied.extend_from_slice(memory))?;
        with_memory(to, bytes, |memory| memory.copy_from_slice(&copied))
    }))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemcpyDtoH_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
) -> Status {
    if to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller passes a pointer to so many bytes, as cuda.h demands.
    let wanted = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), bytes) };
    code(on_context("cuMemcpyDtoH_v2").and_then(|(state, device)| {
        with_memory(from, bytes, |memory| wanted.copy_from_slice(memory))?;
        let fault = state.gpus.get(device).and_then(|gpu| gpu.fault).unwrap_or_default();
        if let (true, Some(byte)) = (fault.wrong_bytes, wanted.get_mut(bytes / 2)) {
            *byte ^= 0x10;
        }
        Ok(())
    }))
}

/// So many bytes of the context's memory from an address on.
fn with_memory(at: u64, bytes: usize, use_it: impl FnOnce(&mut [u8])) -> Result<(), Status> {
    let number = at.checked_sub(FIRST_ADDRESS).map(|offset| offset / BETWEEN);
    let number = number.and_then(|number| usize::try_from(number).ok()).ok_or(INVALID_VALUE)?;
    let mut context = context();
    let memory = context.memory.get_mut(number).ok_or(INVALID_VALUE)?;
    use_it(memory.get_mut(..bytes).ok_or(INVALID_VALUE)?);
    Ok(())
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuGetErrorName(status: Status, out: *mut *const c_char) -> Status {
    let name = match status {
        SUCCESS => c"CUDA_SUCCESS",
        INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        NOT_INITIALIZED => c"CUDA_ERROR_NOT_INITIALIZED",
        NO_DEVICE => c"CUDA_ERROR_NO_DEVICE",
        INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
        INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
        ECC_UNCORRECTABLE => c"CUDA_ERROR_ECC_UNCORRECTABLE",
        LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        SYSTEM_NOT_READY => c"CUDA_ERROR_SYSTEM_NOT_READY",
        DRIVER_MISMATCH => c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        UNKNOWN => c"CUDA_ERROR_UNKNOWN",
        _ => return INVALID_VALUE,
    };
    // SAFETY: the caller passes a pointer to a pointer, as cuda.h demands.
    unsafe { put(out, Ok(name.as_ptr())) }
}
