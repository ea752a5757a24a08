//! What `make image` shows: the production template of `packer/`, built for real against the lab, and what comes of it.
//!
//! [`tool`] runs Packer, [`builds`] are the builds and what each must leave in the account, [`tree`] reads the disk of the
//! image that was made, [`fleet`] boots a fleet from it. Packer, its plugin, ssh and the machine are real; EC2 is the emulator.

pub mod builds;
pub mod fleet;
pub mod tool;
pub mod tree;
