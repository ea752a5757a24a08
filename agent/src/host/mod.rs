//! Every effect on the node itself: files, programs, systemd, clock, console.
//!
//! Nothing else in the agent opens a file, starts a program or reads a clock. All paths go through
//! [`Root`], so that the same program runs on a node and on a directory that looks like one.

pub mod chance;
pub mod clock;
pub mod console;
pub mod exec;
pub mod files;
pub mod kmsg;
pub mod memory;
pub mod network;
pub mod notify;
pub mod program;
mod root;
pub mod space;
pub mod systemd;

pub use clock::Deadline;
pub use root::Root;
