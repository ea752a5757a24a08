//! Thin clients: configuration, errors that say what was attempted, and typed reads with paging.
//!
//! Endpoints, region and credentials come from the SDK's standard variables and files, and from
//! nowhere else. Pollers are our own ([`poll`]): the generated waiters start at 30 s.

pub mod adopt;
pub mod clients;
pub mod connector;
pub mod ec2;
pub mod eks;
pub mod error;
pub mod partition;
pub mod poll;
pub mod rates;
pub mod signed;
pub mod tagging;

pub use clients::Clients;
pub use error::{Attempted, AwsError};
