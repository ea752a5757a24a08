//! AWS as the node sees it: the metadata service, its role's credentials, and few signed calls.
//!
//! The SDK's standard variables place every endpoint. Parameter Store goes through its SDK; EC2 and
//! EKS, of which one or two calls are needed, through [`signed`], because their SDKs would cost more
//! than the rest of the agent together.

pub mod client;
pub mod credentials;
pub mod ec2;
pub mod eks;
pub mod endpoint;
pub mod imds;
pub mod s3;
pub mod signed;
pub mod ssm;

pub use client::AwsClient;
pub use credentials::RoleCredentials;
pub use endpoint::Endpoints;
pub use imds::Imds;
