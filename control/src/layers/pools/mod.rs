//! What the system layer and the gpu layer share: a launch template and a node group per pool, and
//! the gate that asks every node for its verdict.

pub mod apply;
pub mod breaker;
pub mod desired;
pub mod gate;
pub mod observe;
pub mod plan;
pub mod replace;
pub mod roll;
pub mod tags;

pub use observe::PoolsFacts;
pub use plan::Op;
