//! The instances: each one that the emulator runs is booted as a process node, from its own user
//! data and nothing else.
//!
//! [`runner`] watches the emulator and keeps the nodes; [`node`] is one node's life; [`image`] and
//! [`intake`] are what it is made of; [`install`] fetches the agent, [`services`] keeps it running.

pub mod console;
pub mod image;
pub mod install;
pub mod intake;
pub mod loopback;
pub mod node;
pub mod runner;
pub mod services;
