//! How a pool's nodes are launched: which image, one template builder that knows what each path
//! refuses, and the paths themselves. The managed node group is the first.

pub mod image;
pub mod managed;
pub mod template;
