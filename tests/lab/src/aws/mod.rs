//! How the lab itself speaks to the emulator: signed AWS calls, and the control API beside them.

mod emulator;
mod sign;

pub use emulator::{Emulator, EmulatorError, Instance, MadeImage, Rule};
pub use sign::{Credentials, Request, SignError, sign};

/// The text of the first element `name` in an XML answer, with the five entities resolved.
///
/// The answers that the lab reads are small and machine-made; namespaces and attributes on these
/// elements do not occur.
#[must_use]
pub fn xml_text(xml: &str, name: &str) -> Option<String> {
    let open = format!("<{name}>");
    let start = xml.find(&open)? + open.len();
    let end = xml[start..].find(&format!("</{name}>"))? + start;
    let text = xml[start..end].trim();
    let resolved =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
            .iter()
            .fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain));
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_is_read() {
        let xml = "<A><B> x&amp;lt; </B><B>2</B><C/></A>";
        assert_eq!(xml_text(xml, "B").as_deref(), Some("x&lt;"));
        assert_eq!(xml_text(xml, "C"), None);
        assert_eq!(xml_text("<B>cut", "B"), None);
    }
}
