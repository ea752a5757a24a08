//! EKS in a box: what the demo, the tests and a rehearsal run on. `control` and the agent run in it
//! as they are; only endpoints differ.
//!
//! One binary, `lab`. [`commands`] are what a user types; [`supervisor`] is the process that a lab
//! is. It starts the AWS emulator (`tests/lab/emulator`) and [`kubernetes`], and runs the
//! [`instances`]: each one that the emulator launches becomes a process node with an [`imds`] of
//! its own. [`faults`] break things, [`corpus`] plays them all. Below a node's `usr/bin` the same binary stands in for what a
//! machine has and a process node has not: [`nodeadm_standin`], [`systemctl_double`],
//! [`journalctl_double`] and the kubelet stand-in.

pub mod aws;
pub mod bench;
pub mod cli;
pub mod commands;
pub mod corpus;
pub mod directory;
pub mod driver_double;
pub mod entry;
pub mod faults;
pub mod gear;
pub mod imds;
pub mod instances;
pub mod journalctl_double;
pub mod kubernetes;
pub mod nodeadm_standin;
pub mod nodes;
pub mod output;
pub mod processes;
mod relay;
pub mod supervisor;
pub mod systemctl_double;
pub mod user_data;
