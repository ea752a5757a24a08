//! The phases in join order: each gathers facts and has a pure verdict on them.

pub mod drivers;
