//! The instances: each one that the emulator runs is booted as a node, from its own user data and
//! nothing else.
//!
//! [`runner`] watches the emulator and keeps the nodes; [`node`] is one node's life; [`image`] and
//! [`intake`] are what it is made of; [`install`] fetches the agent, [`services`] keeps it running. [`machine_node`] is the same for a machine, which boots by itself.

pub mod console;
pub mod image;
pub mod install;
pub mod intake;
pub mod loopback;
pub mod machine_node;
pub mod node;
mod restart;
pub mod runner;
pub mod services;

/// The tag that names a pool whose instances run in AWS alone: no node boots from them. For pools of a
/// size that no machine boots.
pub const NO_NODE_TAG: &str = "lab:no-node";
