//! The lab as a user meets it: its program, its emulator, instances that boot from their user data.

#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

mod aws;
mod boot;
mod life;
mod parts;
mod systemctl;
mod world;
