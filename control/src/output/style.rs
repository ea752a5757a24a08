//! Colours, and only where they are wanted: on a terminal, unless `NO_COLOR` is set.

use std::fmt::Display;
use std::io::IsTerminal;

/// Whether to paint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

macro_rules! paints {
    ($($(#[$doc:meta])* $name:ident $code:literal)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(self, text: impl Display) -> String {
            if self.colour { format!(concat!("\x1b[", $code, "m{}\x1b[0m"), text) } else { text.to_string() }
        }
    )* };
}

impl Style {
    /// No colour at all.
    pub const PLAIN: Self = Self { colour: false };

    /// Colour when `stream` is a terminal and `NO_COLOR` is not set (no-color.org).
    pub fn for_stream(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self { colour: stream.is_terminal() && !refused && !dumb }
    }

    paints! {
        /// Good news.
        green "32"
        /// Bad news.
        red "31"
        /// Something to look at.
        yellow "33"
        /// Names.
        cyan "36"
        /// What may be passed over.
        dim "2"
        /// What must not.
        bold "1"
    }
}
