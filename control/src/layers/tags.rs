//! The tags that everything carries: whose it is, which layer made it, what it is called, and the
//! fleet file's own.

use std::collections::BTreeMap;

use contract::names::{TAG_FLEET, TAG_LAYER};

use crate::stack::Layer;

/// The tags of a resource; ours outrank the file's.
#[must_use]
pub fn of(
    fleet: &str,
    layer: Layer,
    name: &str,
    own: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut tags = own.clone();
    tags.insert("Name".into(), name.into());
    tags.insert(TAG_FLEET.into(), fleet.into());
    tags.insert(TAG_LAYER.into(), layer.label().into());
    tags
}
