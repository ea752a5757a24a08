//! The layers, bottom up. Each has the same files: `desired` and `plan` are pure, `observe`, `apply`
//! and `gate` touch the world.

pub mod network;

pub mod identity;

pub mod cluster;

pub mod addons;

pub mod system;

pub mod gpu;

// What layers share, and what is cleared up with them.
pub mod blocks;
pub mod claims;
pub mod names;
pub mod pools;
pub mod reports;
pub mod tags;
