//! EKS in a box: what the tests and the demo run on.

pub mod kubernetes;
