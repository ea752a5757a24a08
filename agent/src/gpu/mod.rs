//! GPUs: facts from PCI, the driver's files and NVML, and which GPUs there should be.
//!
//! In the order of the evidence, the safest first: [`pci`] and [`module`] read files that never
//! hang; [`probe`] runs a helper process that may be abandoned, because the driver's library holds
//! process-wide locks and a stuck thread cannot be killed. Only that helper loads it ([`nvml`]).
//! [`sample`] is what it says, as plain data; [`expected`] what it should say. [`kernel`] and [`cdi`]
//! read what the image has built for the GPUs, [`efa`] the adapters beside them. [`catalogue`] lists
//! everything that is looked at, [`checks`] judges it. [`canary`] has the GPUs compute a little through
//! CUDA, where a pool asks for that.

pub mod canary;
pub mod catalogue;
pub mod cdi;
pub mod checks;
pub mod efa;
pub mod expected;
pub mod kernel;
pub mod library;
pub mod log_line;
pub mod module;
pub mod nvml;
pub mod pci;
pub mod probe;
pub mod process;
pub mod reset;
pub mod sample;
pub mod xid;
