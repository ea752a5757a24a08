//! Takes an EKS node from power-on to a proven, Ready worker, and says why when it cannot.
//!
//! How a node joins: the [`pipeline`] walks the [`phases`] in order. Each gathers facts and has a
//! pure verdict on them; kubelet starts only with the tokens that the gates before it hand out.
//! What can be mended before the verdict, [`repair`] tries. Whatever changes goes into the [`report`], which leaves over every channel that works. Afterwards
//! [`watch`] keeps an eye on the GPUs and serves [`metrics`]. [`diagnose`] looks at every gate at once,
//! on demand, and changes nothing.
//!
//! The effects live in few places: [`host`] (files, programs, systemd, clock, console), [`aws`],
//! [`kube`], and the driver's library in [`gpu`].

pub mod phases;
pub mod pipeline;

pub mod repair;

pub mod check_image;
pub mod diagnose;
pub mod report;

pub mod gpu;
pub mod metrics;
pub mod watch;

pub mod aws;
pub mod host;
pub mod kube;

#[cfg(test)]
mod testing;
