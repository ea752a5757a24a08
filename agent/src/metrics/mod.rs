//! Metrics: dcgm-exporter's default families under their own names, so that dashboards and alerts
//! made for it work unchanged, and ours beside them.
//!
//! [`snapshot`] is what the watch knows at a moment; [`families`] the table of what is said of a
//! GPU; [`render`] makes the text, a pure function of the two; [`serve`] hands it out. A scrape
//! reads the last snapshot and never touches the driver.

pub mod families;
pub mod render;
pub mod serve;
pub mod snapshot;
