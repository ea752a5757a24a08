//! After the join: the health loop, conditions and metrics.
