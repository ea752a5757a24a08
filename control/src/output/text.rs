//! Text for 80 columns: wrapping and columns. Widths are counted in characters.

/// Breaks text at blanks into lines of at most `width` characters, each behind `indent` blanks. A
/// word that is longer than a line stays whole: a command must be copyable.
#[must_use]
pub fn wrap(text: &str, indent: usize, width: usize) -> String {
    let margin = " ".repeat(indent);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let word_length = word.chars().count();
        if length > 0 && indent + length + 1 + word_length > width {
            lines.push(format!("{margin}{line}"));
            line.clear();
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += word_length;
    }
    lines.push(format!("{margin}{line}"));
    lines.join("\n")
}

/// Cuts text to `width` characters, with an ellipsis where something was cut.
#[must_use]
pub fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_at_blanks_and_never_within_a_word() {
        assert_eq!(wrap("one two three", 2, 9), "  one two\n  three");
        assert_eq!(wrap("a --very-long-option b", 0, 8), "a\n--very-long-option\nb");
        assert_eq!(wrap("", 2, 80), "  ");
        assert_eq!(wrap("äöü äöü", 0, 7), "äöü äöü");
    }

    #[test]
    fn shortens_by_characters() {
        assert_eq!(shorten("grün ist gut", 5), "grün…");
        assert_eq!(shorten("grün", 4), "grün");
    }
}
