//! How a pool's nodes are launched: which image, which interfaces, into which reservation, one template builder that knows what each path
//! refuses, and the paths themselves. The managed node group is the first.

pub mod image;
pub mod interfaces;
pub mod managed;
pub mod placement;
pub mod refusal;
pub mod reservation;
pub mod template;
