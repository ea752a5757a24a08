//! Drives the programs that a user installs against the lab, as a user would: by their command
//! lines, environment, output and exit codes. The demo and the end-to-end tests share it; [`suite`]
//! is what `make e2e` runs, [`vm`] what `make e2e-vm` does.

pub mod image;
pub mod programs;
pub mod suite;
pub mod terminal;
pub mod torture;
pub mod vm;
pub mod world;

pub use programs::{Finished, Programs};
pub use world::World;
