//! The handful of calls of the CUDA driver (`libcuda.so.1`) that show whether a GPU computes: a
//! context, memory, a fill, copies. No toolkit is needed, and no kernel is compiled.
//!
//! Every call may hang in the driver: only a process that can be abandoned comes here.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::ptr;

use libloading::{Library, Symbol};

type Status = c_uint;
type DevicePointer = u64;
type Context = *mut c_void;

const SUCCESS: Status = 0;
/// What memory is filled with: every bit takes both values next to each other.
const FILL: u32 = 0xa5a5_5a5a;
/// The longest PCI address, with its closing zero.
const ADDRESS_LENGTH: usize = 24;

/// Why a GPU is not shown to compute.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// The library cannot be loaded.
    #[error("could not load `{library}`")]
    Load {
        /// Its name.
        library: String,
        /// What the loader said.
        #[source]
        source: libloading::Error,
    },
    /// The library is older than the call.
    #[error("this driver's library has no `{0}`")]
    SymbolAbsent(&'static str),
    /// The driver answered with an error.
    #[error("`{call}` gave {code} ({name})")]
    Call {
        /// The call.
        call: &'static str,
        /// The code, `CUresult`.
        code: u32,
        /// Its name.
        name: String,
    },
    /// Memory gave back other bytes than it was given.
    #[error("{wrong} of {words} words came back wrong from {from}, the first at {at}")]
    Wrong {
        /// After what.
        from: &'static str,
        /// How many.
        wrong: usize,
        /// Of how many.
        words: usize,
        /// Where the first one is, in bytes.
        at: usize,
    },
}

/// The CUDA driver's library.
#[derive(Debug)]
pub struct Cuda {
    library: Library,
}

/// A GPU as CUDA counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaDevice(c_int);

/// Calls a function of the library and makes an error of its code.
macro_rules! call {
    ($cuda:expr, $name:ident($($argument:expr => $kind:ty),*)) => {{
        type Function = unsafe extern "C" fn($($kind),*) -> Status;
        let name = stringify!($name);
        // SAFETY: the type is the one that cuda.h declares for this name.
        let function: Result<Symbol<'_, Function>, _> =
            unsafe { $cuda.library.get(concat!(stringify!($name), "\0").as_bytes()) };
        match function {
            // SAFETY: the pointers among the arguments are to memory of the caller's frame or heap, as
            // large as the call is told, and live until it returns.
            Ok(function) => $cuda.checked(name, unsafe { function($($argument),*) }),
            Err(_) => Err(CudaError::SymbolAbsent(name)),
        }
    }};
}

impl Cuda {
    /// Loads the library and initialises the driver.
    ///
    /// # Errors
    /// It cannot be loaded, or does not initialise.
    pub fn open(library: &OsStr) -> Result<Self, CudaError> {
        // SAFETY: the driver's own library; its initialisers are what every CUDA program runs.
        let loaded = unsafe { Library::new(library) };
        let name = || library.to_string_lossy().into_owned();
        let library = loaded.map_err(|source| CudaError::Load { library: name(), source })?;
        let cuda = Self { library };
        call!(cuda, cuInit(0 => c_uint))?;
        Ok(cuda)
    }

    /// The GPUs, in CUDA's order.
    ///
    /// # Errors
    /// The driver answers with an error.
    pub fn devices(&self) -> Result<Vec<CudaDevice>, CudaError> {
        let mut count: c_int = 0;
        call!(self, cuDeviceGetCount(&raw mut count => *mut c_int))?;
        let device = |ordinal: c_int| -> Result<CudaDevice, CudaError> {
            let mut device: c_int = 0;
            call!(self, cuDeviceGet(&raw mut device => *mut c_int, ordinal => c_int))?;
            Ok(CudaDevice(device))
        };
        (0..count).map(device).collect()
    }

    /// A GPU's PCI address, `0000:53:00.0`.
    ///
    /// # Errors
    /// The driver answers with an error.
    pub fn address(&self, device: CudaDevice) -> Result<String, CudaError> {
        let mut text = [0_u8; ADDRESS_LENGTH];
        let room = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
        let out = text.as_mut_ptr().cast::<c_char>();
        call!(self, cuDeviceGetPCIBusId(out => *mut c_char, room => c_int, device.0 => c_int))?;
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    /// Has a GPU fill so many words of memory, take others, copy them from one place of its memory to
    /// another, and give all of them back.
    ///
    /// # Errors
    /// The driver answers with an error, or other bytes come back.
    pub fn prove(&self, device: CudaDevice, words: usize) -> Result<(), CudaError> {
        let mut context: Context = ptr::null_mut();
        call!(self, cuCtxCreate_v2(&raw mut context => *mut Context, 0 => c_uint, device.0 => c_int))?;
        let proven = self.compute(words);
        let ended = call!(self, cuCtxDestroy_v2(context => Context));
        proven.and(ended)
    }

    fn compute(&self, words: usize) -> Result<(), CudaError> {
        let first = self.allocate(words)?;
        let second = self.allocate(words);
        // The memory goes with the context, whatever comes of it.
        let (first, second) = (first, second?);
        call!(self, cuMemsetD32_v2(first => DevicePointer, FILL => c_uint, words => usize))?;
        let filled = self.fetch(first, words)?;
        compare("a fill", &filled, |_| FILL)?;
        let sent: Vec<u32> = (0..words).map(pattern).collect();
        let bytes = size_of_val(sent.as_slice());
        let from = sent.as_ptr().cast::<c_void>();
        call!(self, cuMemcpyHtoD_v2(first => DevicePointer, from => *const c_void, bytes => usize))?;
        call!(self, cuMemcpyDtoD_v2(second => DevicePointer, first => DevicePointer, bytes => usize))?;
        let copied = self.fetch(second, words)?;
        compare("a copy", &copied, pattern)
    }

    fn allocate(&self, words: usize) -> Result<DevicePointer, CudaError> {
        let mut pointer: DevicePointer = 0;
        let bytes = words * size_of::<u32>();
        call!(self, cuMemAlloc_v2(&raw mut pointer => *mut DevicePointer, bytes => usize))?;
        Ok(pointer)
    }

    fn fetch(&self, from: DevicePointer, words: usize) -> Result<Vec<u32>, CudaError> {
        call!(self, cuCtxSynchronize())?;
        let mut back = vec![0_u32; words];
        let bytes = size_of_val(back.as_slice());
        let to = back.as_mut_ptr().cast::<c_void>();
        call!(self, cuMemcpyDtoH_v2(to => *mut c_void, from => DevicePointer, bytes => usize))?;
        Ok(back)
    }

    fn checked(&self, call: &'static str, code: Status) -> Result<(), CudaError> {
        if code == SUCCESS {
            return Ok(());
        }
        Err(CudaError::Call { call, code, name: self.name_of(code) })
    }

    /// The name of a code, `CUDA_ERROR_NO_DEVICE`; empty where the library does not know it.
    fn name_of(&self, code: Status) -> String {
        type Function = unsafe extern "C" fn(Status, *mut *const c_char) -> Status;
        let mut text: *const c_char = ptr::null();
        // SAFETY: the type is the one that cuda.h declares for this name.
        let function = unsafe { self.library.get::<Function>(b"cuGetErrorName\0") };
        // SAFETY: the pointer is to a pointer of this frame.
        let is_known = function.is_ok_and(|name| unsafe { name(code, &raw mut text) } == SUCCESS);
        if !is_known || text.is_null() {
            return "an unknown code".to_owned();
        }
        // SAFETY: the driver gives a text of its own that lives as long as the library.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// What is sent to a word: no two neighbours alike, and every bit used.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn pattern(index: usize) -> u32 {
    (index as u32).wrapping_mul(0x9e37_79b9) ^ 0x0f1e_2d3c
}

fn compare(
    from: &'static str,
    back: &[u32],
    wanted: impl Fn(usize) -> u32,
) -> Result<(), CudaError> {
    let mut wrong = back.iter().enumerate().filter(|(at, word)| **word != wanted(*at));
    let Some((first, _)) = wrong.next() else { return Ok(()) };
    let (words, at) = (back.len(), first * size_of::<u32>());
    Err(CudaError::Wrong { from, wrong: 1 + wrong.count(), words, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_word_is_counted_and_placed() {
        let mut words: Vec<u32> = (0..64).map(pattern).collect();
        assert!(compare("a copy", &words, pattern).is_ok());
        words[7] ^= 1;
        words[9] = 0;
        let error = compare("a copy", &words, pattern).unwrap_err().to_string();
        assert_eq!(error, "2 of 64 words came back wrong from a copy, the first at 28");
    }

    #[test]
    fn a_library_that_is_not_there_is_said() {
        let error = Cuda::open(OsStr::new("/no/such/libcuda.so.1")).unwrap_err();
        assert_eq!(error.to_string(), "could not load `/no/such/libcuda.so.1`");
    }
}
