//! Deterministic names: the same fleet file always means the same things, and nothing but AWS has to
//! be asked to find them again.

use sha2::{Digest as _, Sha256};

/// `name`, or when it is longer than `max` its beginning and a hash of the whole.
#[must_use]
pub fn bounded(name: &str, max: usize) -> String {
    if name.len() <= max {
        return name.to_owned();
    }
    let keep = max - 9;
    format!("{}-{}", &name[..name.floor_char_boundary(keep)], &digest(name.as_bytes())[..8])
}

/// SHA-256 in lower-case hex.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Identifies what a resource was made from: the value of its `rollcall:spec` tag.
#[must_use]
pub fn spec_hash(parts: &[&str]) -> String {
    // A separator that no part holds keeps ["ab", "c"] apart from ["a", "bc"].
    digest(parts.join("\u{1f}").as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        assert_eq!(bounded("prod-cluster", 64), "prod-cluster");
        let (a, b) = (format!("{}a", "x".repeat(80)), format!("{}b", "x".repeat(80)));
        assert_eq!(bounded(&a, 64).len(), 64);
        assert_ne!(bounded(&a, 64), bounded(&b, 64));
        assert_eq!(bounded(&a, 64), bounded(&a, 64));
    }

    #[test]
    fn a_spec_hash_tells_its_parts_apart() {
        assert_ne!(spec_hash(&["ab", "c"]), spec_hash(&["a", "bc"]));
        assert_eq!(spec_hash(&["a"]).len(), 16);
    }
}
