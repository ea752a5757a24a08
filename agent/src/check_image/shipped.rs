//! What we install, read from the list that the tarball and the packages are made from.

/// The repository's `amis/files`.
const LIST: &str = include_str!("../../../amis/files");

/// One line of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Permissions alone: `0o755`.
    pub mode: u32,
    /// Where it comes from below the repository, `agent` for the program itself; nothing for a directory.
    pub source: Option<&'static str>,
    /// Where it lies on the node.
    pub place: &'static str,
}

/// Everything that we install, in the list's order.
///
/// # Panics
/// Never with the list that is compiled in: a test reads it to its end.
#[must_use]
pub fn all() -> Vec<Shipped> {
    LIST.lines().filter_map(line).collect()
}

fn line(line: &'static str) -> Option<Shipped> {
    let mut words = line.split_whitespace();
    let mode = words.next().filter(|word| !word.starts_with('#'))?;
    let (source, place) = (words.next()?, words.next()?);
    Some(Shipped {
        mode: u32::from_str_radix(mode, 8).ok()?,
        source: (source != "-").then_some(source),
        place,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_line_is_read() {
        let said = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert_eq!(all().len(), said);
        assert!(all().iter().all(|one| matches!(one.mode, 0o644 | 0o755)), "{:?}", all());
    }

    /// A unit that nobody lists is a unit that no node has.
    #[test]
    fn nothing_below_systemd_is_forgotten() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut open = vec![repository.join("systemd")];
        let mut there = BTreeSet::new();
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                match entry.path().is_dir() {
                    true => open.push(entry.path()),
                    false => _ = there.insert(entry.path()),
                }
            }
        }
        let listed = all().into_iter().filter_map(|one| one.source).filter(|s| *s != "agent");
        let listed: BTreeSet<_> = listed.map(|source| repository.join(source)).collect();
        assert_eq!(listed, there);
    }
}
