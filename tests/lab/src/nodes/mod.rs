//! What a node can be besides a process node (which [`crate::instances`] makes): a machine.

pub mod machine;
