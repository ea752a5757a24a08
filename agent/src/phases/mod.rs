//! The phases in join order: each gathers facts and has a pure verdict on them.

pub mod identify;

pub mod configure;

pub mod preflight;

pub mod drivers;

pub mod bootstrap;

pub mod cni;

pub mod cloud_init;
pub mod register;

pub mod ready;

pub mod gate;
pub mod nodeadm;
pub mod notices;
