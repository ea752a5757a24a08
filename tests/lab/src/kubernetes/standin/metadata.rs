//! What the API server itself writes into `metadata`, and keeps.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use serde_json::Value;

use super::registry::ResourceType;
use super::status::ApiError;

/// The object's name, made from `generateName` where it has none.
pub(super) fn name_for(kind: &ResourceType, object: &mut Value) -> Result<String, ApiError> {
    let meta = &mut object["metadata"];
    if let Some(name) = meta["name"].as_str().filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    let Some(prefix) = meta["generateName"].as_str().filter(|prefix| !prefix.is_empty()) else {
        let why = "metadata.name: Required value: name or generateName is required";
        return Err(ApiError::invalid(kind, "", &[why.to_owned()]));
    };
    let name = format!("{prefix}{}", random_suffix());
    meta["name"] = name.clone().into();
    Ok(name)
}

/// What a new object gets: type, namespace, identity, birth.
pub(super) fn stamp_new(kind: &ResourceType, namespace: &str, object: &mut Value) {
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.into();
    let meta = &mut object["metadata"];
    if kind.namespaced {
        meta["namespace"] = namespace.into();
    }
    meta["uid"] = random_uid().into();
    meta["creationTimestamp"] = now_seconds().into();
    if kind.generation {
        meta["generation"] = 1.into();
    }
}

/// What no write may change: type, name, uid, birth; and the generation, which counts spec changes.
pub(super) fn keep_identity(kind: &ResourceType, current: &Value, next: &mut Value) {
    next["apiVersion"] = current["apiVersion"].clone();
    next["kind"] = current["kind"].clone();
    for field in ["name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation"]
    {
        match current["metadata"].get(field) {
            Some(value) => next["metadata"][field] = value.clone(),
            None => {
                if let Some(meta) = next["metadata"].as_object_mut() {
                    meta.remove(field);
                }
            }
        }
    }
    if kind.generation && next["spec"] != current["spec"] {
        let generation = current["metadata"]["generation"].as_i64().unwrap_or(0);
        next["metadata"]["generation"] = (generation + 1).into();
    }
}

/// The time as `metadata.creationTimestamp` and conditions write it.
pub(super) fn now_seconds() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// 64 bits that differ each time: every `RandomState` has keys of its own.
fn random_bits() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn random_uid() -> String {
    let (a, b) = (random_bits(), random_bits());
    let b = (b & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        b >> 48,
        b & 0xffff_ffff_ffff
    )
}

/// Five characters as the API server appends to `generateName`: no vowels, no look-alikes.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bits = random_bits();
    let mut suffix = String::new();
    for _ in 0..5 {
        let index = usize::try_from(bits % 27).unwrap_or_default();
        suffix.push(char::from(ALPHABET[index]));
        bits /= 27;
    }
    suffix
}
