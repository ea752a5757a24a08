//! A simulated `libnvidia-ml.so.1`: a test double at the boundary between a program and the NVIDIA
//! driver. Its GPUs and their faults come from a file that may change while programs use it.
//!
//! Two halves. The cdylib exports the C functions that NVML clients call ([`calls`](self)), found
//! through the state file beside it. The rlib is for those who write that file:
//!
//! - [`state`]: what the file says, and writing it;
//! - [`profile`]: the GPUs of an EC2 instance type;
//! - [`fault`]: named faults as edits of a state, and what happens once;
//! - [`node_files()`]: the `/proc`, `/sys`, `/dev` and `/opt` files that a node shows for that state;
//! - [`kernel_log`]: the kernel's log, as `/dev/kmsg` gives it;
//! - [`library`]: putting the cdylib where programs look for it, without functions that it is not to have.
//!
//! Where the library finds its state: `NVML_SIM_STATE` if set, else from its own path:
//! `<root>/usr/lib64/libnvidia-ml.so.1` reads `<root>/var/lib/nvml-sim/state.json`. With such a root
//! it also reads `<root>/proc/driver/nvidia/version`, as the real library asks the kernel: absent is
//! `DRIVER_NOT_LOADED`, another version than its own is `LIB_RM_VERSION_MISMATCH`.

mod calls;
pub mod fault;
pub mod kernel_log;
pub mod library;
pub mod node_files;
pub mod profile;
mod session;
pub mod state;

pub use node_files::{Content, NodeFile, node_files};
pub use state::State;
