//! End-to-end tests: the programs that a user installs, against a lab of the test's own.

#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

mod architecture;
mod breaker;
mod crashes;
mod lives;
mod node_config;
mod operate_page;
mod refusals;
mod tokens;
