//! One process's use of the library: where its state is, whether it is initialised, which handles
//! it has been given, and the faults that lie on every call.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nvml_wrapper_sys::bindings as sys;
use sys::{nvmlDevice_t, nvmlReturn_t};

use crate::state::{Gpu, GpuFault, MigDevice, STATE_PATH, State};

pub(crate) const SUCCESS: nvmlReturn_t = sys::nvmlReturn_enum_NVML_SUCCESS;
pub(crate) const UNINITIALIZED: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED;
pub(crate) const INVALID_ARGUMENT: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
pub(crate) const NOT_SUPPORTED: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
pub(crate) const NOT_FOUND: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
pub(crate) const INSUFFICIENT_SIZE: nvmlReturn_t =
    sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
pub(crate) const NO_PERMISSION: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION;
pub(crate) const VERSION_OF_STRUCT: nvmlReturn_t =
    sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
pub(crate) const TIMEOUT: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT;
const DRIVER_NOT_LOADED: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED;
const GPU_IS_LOST: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST;
const RESET_REQUIRED: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED;
const VERSION_MISMATCH: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH;
const UNKNOWN: nvmlReturn_t = sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN;

/// `NVML_INIT_FLAG_NO_GPUS`: a driver without GPUs is no error.
const FLAG_NO_GPUS: u32 = 1;
/// How often a hanging call looks whether its fault still stands.
const HANG_POLL: Duration = Duration::from_millis(50);

/// The process-wide lock that the real library holds through its calls into the driver.
static LIBRARY: Mutex<()> = Mutex::new(());
static SESSION: Mutex<Session> =
    Mutex::new(Session { initialized: 0, handles: Vec::new(), read: None });

struct Session {
    /// Initialisations not yet shut down.
    initialized: u32,
    /// UUIDs of the devices that handles were given for; a handle is a position plus one.
    handles: Vec<String>,
    /// The state as last read, with what tells whether the file has changed since.
    read: Option<(Stamp, Arc<State>)>,
}

type Stamp = (u64, u64, i64, i64);

fn session() -> MutexGuard<'static, Session> {
    SESSION.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Location {
    state: PathBuf,
    /// Root of the node that the library lies in, when it lies in one.
    root: Option<PathBuf>,
}

fn location() -> &'static Location {
    static LOCATION: OnceLock<Location> = OnceLock::new();
    LOCATION.get_or_init(|| {
        let relative = Path::new(STATE_PATH.trim_start_matches('/'));
        if let Some(state) = std::env::var_os("NVML_SIM_STATE") {
            let state = PathBuf::from(state);
            let root = state.ends_with(relative).then(|| state.ancestors().nth(4)).flatten();
            return Location { root: root.map(Path::to_path_buf), state };
        }
        let library = super::calls::own_path().unwrap_or_default();
        // <root>/usr/lib64/libnvidia-ml.so.1, or <root>/usr/lib/<triplet>/libnvidia-ml.so.1.
        let usr = library.ancestors().find(|path| path.ends_with("usr"));
        let root = usr.and_then(Path::parent).map(Path::to_path_buf);
        Location { state: root.clone().unwrap_or_default().join(relative), root }
    })
}

/// The state as the file now says.
fn current() -> Result<Arc<State>, nvmlReturn_t> {
    let path = &location().state;
    let metadata = fs::metadata(path).map_err(|_| DRIVER_NOT_LOADED)?;
    let stamp = (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
    let mut session = session();
    if let Some((read, state)) = &session.read
        && *read == stamp
    {
        return Ok(Arc::clone(state));
    }
    let state = Arc::new(State::read_file(path).map_err(|_| UNKNOWN)?);
    session.read = Some((stamp, Arc::clone(&state)));
    Ok(state)
}

/// What the kernel says of the driver, asked at initialisation as the real library does.
fn ask_kernel(state: &State) -> Result<(), nvmlReturn_t> {
    let Some(root) = &location().root else { return Ok(()) };
    let version = fs::read_to_string(root.join("proc/driver/nvidia/version"))
        .map_err(|_| DRIVER_NOT_LOADED)?;
    let same = version.split_whitespace().any(|word| word == state.driver_version);
    if same { Ok(()) } else { Err(VERSION_MISMATCH) }
}

/// Initialises the library.
pub(crate) fn initialize(call: &str, flags: u32) -> Result<(), nvmlReturn_t> {
    let state = current()?;
    meet_faults(call, &state)?;
    if let Some(code) = state.faults.init {
        return Err(code);
    }
    ask_kernel(&state)?;
    if state.gpus.is_empty() && flags & FLAG_NO_GPUS == 0 {
        return Err(DRIVER_NOT_LOADED);
    }
    session().initialized += 1;
    Ok(())
}

/// Undoes one initialisation.
pub(crate) fn shut_down() -> Result<(), nvmlReturn_t> {
    let mut session = session();
    session.initialized = session.initialized.checked_sub(1).ok_or(UNINITIALIZED)?;
    Ok(())
}

/// Begins a call: meets its faults, and gives the state to answer from.
pub(crate) fn enter(call: &str) -> Result<Arc<State>, nvmlReturn_t> {
    if session().initialized == 0 {
        return Err(UNINITIALIZED);
    }
    let state = current()?;
    meet_faults(call, &state)?;
    Ok(state)
}

/// Begins a call of CUDA's; no code where there is no driver at all.
pub(crate) fn enter_cuda(call: &str) -> Result<Arc<State>, Option<nvmlReturn_t>> {
    let state = current().map_err(|_| None)?;
    meet_faults(call, &state).map_err(Some)?;
    Ok(state)
}

fn meet_faults(call: &str, state: &State) -> Result<(), nvmlReturn_t> {
    let faults = &state.faults;
    if faults.hang.iter().any(|name| name == "*") {
        let _stuck = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
        hang_while(|state| state.faults.hang.iter().any(|name| name == "*"));
    } else {
        // Waits here while another thread is stuck in the driver.
        drop(LIBRARY.lock().unwrap_or_else(PoisonError::into_inner));
        if faults.hang.iter().any(|name| name == call) {
            hang_while(|state| state.faults.hang.iter().any(|name| name == call));
        }
    }
    let own = faults.delays.get(call).copied().unwrap_or_default();
    let slow = faults.slow.filter(|slow| is_slow(slow.every)).map_or(0, |slow| slow.ms);
    pause(Duration::from_millis(faults.delay_ms + own + slow));
    match faults.codes.get(call).or(faults.codes.get("*")) {
        Some(code) => Err(*code),
        None => Ok(()),
    }
}

/// Whether this call is the one of so many that takes its time.
fn is_slow(every: u32) -> bool {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed) % every.max(1) == every.max(1) - 1
}

/// Does not come back while the fault stands; goes with a state that cannot be read.
fn hang_while(stands: impl Fn(&State) -> bool) {
    while current().is_ok_and(|state| stands(&state)) {
        pause(HANG_POLL);
    }
}

/// The state as it is now, for a call that waits; its faults were met when it began.
pub(crate) fn look() -> Option<Arc<State>> {
    current().ok()
}

#[expect(clippy::disallowed_methods, reason = "a simulated driver takes time as a real one does")]
pub(crate) fn pause(time: Duration) {
    if !time.is_zero() {
        thread::sleep(time);
    }
}

/// A handle for the device with this UUID: the same one each time.
pub(crate) fn handle_of(uuid: &str) -> nvmlDevice_t {
    let mut session = session();
    let position = session.handles.iter().position(|known| known == uuid).unwrap_or_else(|| {
        session.handles.push(uuid.to_owned());
        session.handles.len() - 1
    });
    std::ptr::without_provenance_mut(position + 1)
}

pub(crate) fn uuid_of(device: nvmlDevice_t) -> Option<String> {
    session().handles.get(device.addr().checked_sub(1)?).cloned()
}

/// What a handle stands for.
pub(crate) struct Target<'a> {
    pub(crate) gpu: &'a Gpu,
    /// The part of it, where the handle is a MIG device's.
    pub(crate) part: Option<&'a MigDevice>,
    pub(crate) state: &'a State,
}

/// Begins a call on a device or on a part of one.
pub(crate) fn on_target<T>(
    call: &str,
    device: nvmlDevice_t,
    answer: impl FnOnce(Target<'_>) -> Result<T, nvmlReturn_t>,
) -> Result<T, nvmlReturn_t> {
    let state = enter(call)?;
    let uuid = uuid_of(device).ok_or(INVALID_ARGUMENT)?;
    let target = state.gpus.iter().find_map(|gpu| {
        let part = gpu.mig_devices.iter().find(|part| part.uuid == uuid);
        (part.is_some() || gpu.uuid == uuid).then_some(Target { gpu, part, state: &state })
    });
    // A handle outlives its GPU: one that has left the bus is lost to whoever held it.
    let target = target.ok_or(GPU_IS_LOST)?;
    check(call, target.gpu)?;
    answer(target)
}

/// Begins a call that only whole devices answer.
pub(crate) fn on_device<T>(
    call: &str,
    device: nvmlDevice_t,
    answer: impl FnOnce(&Gpu, &State) -> Result<T, nvmlReturn_t>,
) -> Result<T, nvmlReturn_t> {
    on_target(call, device, |target| match target.part {
        Some(_) => Err(NOT_SUPPORTED),
        None => answer(target.gpu, target.state),
    })
}

/// Meets the faults of a broken device.
pub(crate) fn check(call: &str, gpu: &Gpu) -> Result<(), nvmlReturn_t> {
    let fault = gpu.fault.unwrap_or_default();
    if fault.hang {
        let stands = |state: &State| {
            let now = state.gpus.iter().find(|other| other.uuid == gpu.uuid);
            now.and_then(|gpu| gpu.fault.as_ref()).is_some_and(|fault| fault.hang)
        };
        let lock = fault.holds_lock.then(|| LIBRARY.lock().unwrap_or_else(PoisonError::into_inner));
        hang_while(stands);
        drop(lock);
    }
    pause(Duration::from_millis(fault.delay_ms));
    match fault {
        GpuFault { lost: true, .. } => Err(GPU_IS_LOST),
        GpuFault { reset_required: true, .. } => Err(RESET_REQUIRED),
        fault => gpu.call_codes.get(call).copied().or(fault.code).map_or(Ok(()), Err),
    }
}

/// Time since boot: what counters grow with, the same for every process.
pub(crate) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// A triangle between -1 and 1 with a period of a minute: how loads sway.
pub(crate) fn sway() -> f64 {
    let phase = (since_boot().as_secs_f64() / 60.0).fract();
    (phase - 0.5).abs() * 4.0 - 1.0
}
