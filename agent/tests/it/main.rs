//! The agent's program as a node runs it, on roots that look like nodes.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

mod alive;
mod clock;
mod gpu;
mod health;
mod hostile;
mod metadata;
mod private;
mod units;
mod watch;
