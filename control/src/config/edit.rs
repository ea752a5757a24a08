//! Changes one pool in a fleet file's text and leaves every other character as it is, comments too.
//! Pure. It knows the two ways in which people write lists and mappings in YAML, indented lines and
//! braces; whoever calls it proves on the parsed file that only what was meant has changed.

use std::ops::Range;

use crate::config::spec::Size;

/// The size that a pool gets with that many nodes: what bounds it is moved as little as can be.
#[must_use]
pub const fn resized(size: Size, desired: u32) -> Size {
    let min = if size.min < desired { size.min } else { desired };
    let max = if size.max > desired { size.max } else { desired };
    // A managed group's maxSize is at least 1.
    Size { min, desired, max: if max == 0 { 1 } else { max } }
}

/// The text with the pool's size; none where the text is written in a way that is not known here.
#[must_use]
pub fn set_size(text: &str, pool: &str, size: Size) -> Option<String> {
    let entry = entry(text, pool)?;
    let mut changed = text[entry.clone()].to_owned();
    let size_at = key(&changed, "size")?;
    let mut any = false;
    for (name, value) in [("min", size.min), ("desired", size.desired), ("max", size.max)] {
        let within = extent(&changed, size_at);
        if let Some(number) = number_after(&changed, within, name) {
            changed.replace_range(number, &value.to_string());
            any |= name == "desired";
        }
    }
    any.then(|| format!("{}{changed}{}", &text[..entry.start], &text[entry.end..]))
}

/// The text with another pool at the end of its list.
#[must_use]
pub fn add(text: &str, line: &str) -> Option<String> {
    let list = list(text)?;
    let last = *entries(text, &list).last()?.start();
    let indent = indent_of(text, last);
    let head = &text[..list.end];
    let head = head.trim_end_matches(['\n', ' ']);
    let tail = &text[head.len()..];
    Some(format!("{head}\n{}- {line}{tail}", " ".repeat(indent)))
        .map(|text| if text.ends_with('\n') { text } else { format!("{text}\n") })
}

/// The text without the pool.
#[must_use]
pub fn remove(text: &str, pool: &str) -> Option<String> {
    let entry = entry(text, pool)?;
    Some(format!("{}{}", &text[..entry.start], &text[entry.end..]))
}

/// The numbers of the lines, counted from 1, in which two texts differ: the first that does.
#[must_use]
pub fn first_difference(before: &str, after: &str) -> usize {
    let mut lines = before.lines().zip(after.lines()).enumerate();
    let differs = lines.find(|(_, (before, after))| before != after);
    differs.map_or_else(|| before.lines().count().min(after.lines().count()) + 1, |(n, _)| n + 1)
}

/// Where the entries of `pools:` are.
fn list(text: &str) -> Option<Range<usize>> {
    let mut at = 0;
    let mut start = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        let is_item = bare.trim_start().starts_with("- ") || bare.trim_start() == "-";
        let ends = !bare.is_empty() && !bare.starts_with([' ', '#']) && !is_item;
        match start {
            None if bare.split('#').next().map(str::trim_end) == Some("pools:") => {
                start = Some(at + line.len());
            }
            Some(start) if ends => return Some(start..at),
            _ => {}
        }
        at += line.len();
    }
    start.map(|start| start..text.len())
}

/// The line starts of the list's entries, each with where it ends.
fn entries(text: &str, list: &Range<usize>) -> Vec<std::ops::RangeInclusive<usize>> {
    let mut entries: Vec<std::ops::RangeInclusive<usize>> = Vec::new();
    let mut indent = None;
    let mut at = list.start;
    let mut last_content = at;
    for line in text[list.clone()].split_inclusive('\n') {
        let bare = line.trim_end();
        let depth = bare.len() - bare.trim_start().len();
        let is_item = bare.trim_start().starts_with("- ");
        if is_item && depth <= *indent.get_or_insert(depth) {
            if let Some(open) = entries.pop() {
                entries.push(*open.start()..=last_content);
            }
            entries.push(at..=at);
        }
        at += line.len();
        // Comments at the end of an entry may be about the next one: they stay where they are.
        if !bare.is_empty() && !bare.trim_start().starts_with('#') {
            last_content = at;
        }
    }
    if let Some(open) = entries.pop() {
        entries.push(*open.start()..=last_content);
    }
    entries
}

/// Where the pool's entry is: whole lines.
fn entry(text: &str, pool: &str) -> Option<Range<usize>> {
    let list = list(text)?;
    let named = |range: &Range<usize>| {
        let entry = &text[range.clone()];
        let Some(after) = key(entry, "name") else { return false };
        let value = entry[after..].split(['\n', ',', '}', '#']).next().unwrap_or_default();
        value.trim().trim_matches(['"', '\'']) == pool
    };
    let ranges = entries(text, &list).into_iter().map(|range| *range.start()..*range.end());
    let mut found = ranges.filter(named);
    // Two of one name are no fleet, and which is meant cannot be known.
    found.next().filter(|_| found.next().is_none())
}

fn indent_of(text: &str, at: usize) -> usize {
    text[at..].len() - text[at..].trim_start_matches(' ').len()
}

/// The place behind `key:`, where that stands as a key and not in a comment.
fn key(text: &str, key: &str) -> Option<usize> {
    let wanted = format!("{key}:");
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let code = line.find(" #").map_or(line, |comment| &line[..comment]);
        let code = if code.trim_start().starts_with('#') { "" } else { code };
        for (found, _) in code.match_indices(&wanted) {
            let before = code[..found].chars().next_back();
            let after = code[found + wanted.len()..].chars().next();
            if before.is_none_or(|c| " {,".contains(c)) && after.is_none_or(|c| c.is_whitespace()) {
                return Some(at + found + wanted.len());
            }
        }
        at += line.len();
    }
    None
}

/// What belongs to a mapping that begins at `at`: up to its closing brace, or its indented lines.
fn extent(text: &str, at: usize) -> Range<usize> {
    let rest = &text[at..];
    if rest.trim_start_matches(' ').starts_with('{') {
        let end = rest.find('}').map_or(text.len(), |end| at + end);
        return at..end;
    }
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    // `- size:` as an entry's first key is as deep as what follows the dash.
    let head = &text[line..at];
    let own = head.len() - head.trim_start_matches([' ', '-']).len();
    let mut end = at + rest.find('\n').map_or(rest.len(), |newline| newline + 1);
    for line in text[end..].split_inclusive('\n') {
        let bare = line.trim_end();
        let depth = bare.len() - bare.trim_start().len();
        if !bare.is_empty() && depth <= own && !bare.trim_start().starts_with('#') {
            break;
        }
        end += line.len();
    }
    at..end
}

/// Where the number behind a key is.
fn number_after(text: &str, within: Range<usize>, name: &str) -> Option<Range<usize>> {
    let after = within.start + key(&text[within.clone()], name)?;
    let start = after + text[after..].len() - text[after..].trim_start_matches(' ').len();
    let digits = text[start..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - start);
    (digits > 0).then_some(start..start + digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "\
# The fleet.
name: prod
pools:
  # What the cluster needs.
  - name: system
    class: system
    size:
      min: 1
      # Two for CoreDNS.
      desired: 2 # not 1
  # The GPUs.
  - name: gpu
    size: {min: 0, desired: 4, max: 8} # desired: 4
    tags: {size: large}

  - {name: gpu-b, class: gpu, size: {desired: 1}}
tags:
  owner: us
";

    const fn size(min: u32, desired: u32, max: u32) -> Size {
        Size { min, desired, max }
    }

    #[test]
    fn a_size_moves_its_bounds_as_little_as_can_be() {
        assert_eq!(resized(size(0, 4, 8), 6), size(0, 6, 8));
        assert_eq!(resized(size(2, 4, 4), 6), size(2, 6, 6));
        assert_eq!(resized(size(2, 4, 4), 0), size(0, 0, 4));
        assert_eq!(resized(size(0, 0, 0), 0), size(0, 0, 1));
    }

    #[test]
    fn only_the_pools_numbers_change() {
        let changed = set_size(BLOCK, "gpu", size(0, 12, 12)).unwrap();
        let expected =
            BLOCK.replace("{min: 0, desired: 4, max: 8}", "{min: 0, desired: 12, max: 12}");
        assert_eq!(changed, expected);
        let changed = set_size(BLOCK, "system", size(1, 3, 3)).unwrap();
        assert_eq!(changed, BLOCK.replace("desired: 2 # not 1", "desired: 3 # not 1"));
        let changed = set_size(BLOCK, "gpu-b", size(5, 5, 5)).unwrap();
        assert_eq!(changed, BLOCK.replace("{desired: 1}", "{desired: 5}"));
    }

    #[test]
    fn a_pool_goes_and_what_is_said_around_it_stays() {
        let gone = remove(BLOCK, "gpu").unwrap();
        assert!(gone.contains("# The GPUs.") && gone.contains("gpu-b"), "{gone}");
        assert!(!gone.contains("desired: 4, max"), "{gone}");
        let last = remove(BLOCK, "gpu-b").unwrap();
        assert!(last.ends_with("    tags: {size: large}\n\ntags:\n  owner: us\n"), "{last}");
    }

    #[test]
    fn a_pool_comes_at_the_end_of_the_list() {
        let more = add(BLOCK, "{name: c}").unwrap();
        assert!(more.contains("size: {desired: 1}}\n  - {name: c}\ntags:\n"), "{more}");
        let more = add("pools:\n- {name: a}", "{name: b}").unwrap();
        assert_eq!(more, "pools:\n- {name: a}\n- {name: b}\n");
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        assert_eq!(set_size(BLOCK, "none", size(1, 1, 1)), None);
        assert_eq!(set_size("pools: [{name: a, size: {desired: 1}}]\n", "a", size(1, 1, 1)), None);
        assert_eq!(remove("pools:\n  - {name: a}\n  - {name: a}\n", "a"), None);
        assert_eq!(set_size("pools:\n  - name: a\n", "a", size(1, 1, 1)), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), 2);
    }
}
