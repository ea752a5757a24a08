//! The one place that writes to stdout and stderr.

use std::io::{self, IsTerminal as _, Write as _};

use contract::{ErrorChain, ExitCode};
use serde::Serialize;

use crate::cli::Format;
use crate::config::ConfigError;
use crate::failure::advice_of;
use crate::output::Style;
use crate::output::events::{self, Event};

/// Writes data to stdout, progress and errors to stderr.
#[derive(Debug)]
pub struct Printer {
    data: Style,
    notes: Style,
    interactive: bool,
    verb: &'static str,
}

impl Printer {
    /// The printer of this process, which runs that verb.
    #[must_use]
    pub fn for_process(verb: &'static str) -> Self {
        Self {
            data: Style::for_stream(&io::stdout()),
            notes: Style::for_stream(&io::stderr()),
            interactive: io::stdin().is_terminal() && io::stderr().is_terminal(),
            verb,
        }
    }

    /// Colours for what goes to stdout.
    #[must_use]
    pub const fn data_style(&self) -> Style {
        self.data
    }

    /// Colours for what goes to stderr.
    #[must_use]
    pub const fn note_style(&self) -> Style {
        self.notes
    }

    /// Whether somebody is there to answer a question.
    #[must_use]
    pub const fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Whether stderr is a terminal, so that bars can be drawn.
    #[must_use]
    pub fn draws_progress(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// One line of data.
    pub fn line(&self, text: impl AsRef<str>) {
        // A reader that has gone (`| head`) is no error of ours.
        let _ = writeln!(io::stdout(), "{}", text.as_ref());
    }

    /// One line of progress.
    pub fn note(&self, text: impl AsRef<str>) {
        let _ = writeln!(io::stderr(), "{}", text.as_ref());
    }

    /// A value as a document, or as the text that `table` makes of it.
    ///
    /// # Errors
    /// When the value cannot be serialised.
    pub fn data<T: Serialize>(
        &self,
        format: Format,
        value: &T,
        table: impl FnOnce(&T, Style) -> String,
    ) -> anyhow::Result<()> {
        let text = match format {
            Format::Table => table(value, self.data),
            Format::Json => serde_json::to_string_pretty(value)?,
            Format::Yaml => serde_yaml::to_string(value)?,
            Format::Jsonl => {
                let data = serde_json::to_value(value)?;
                events::emit(&Event::Report { verb: self.verb, data });
                return Ok(());
            }
        };
        self.line(text.trim_end_matches('\n'));
        Ok(())
    }

    /// The first line of `-o jsonl`.
    pub fn begin(&self) {
        let version = env!("CARGO_PKG_VERSION");
        let verb = self.verb;
        events::emit(&Event::Version { v: events::VERSION, tool: "control", version, verb });
    }

    /// The last line of `-o jsonl`: how it ended.
    pub fn end(&self, code: ExitCode, error: Option<&anyhow::Error>) {
        let problems = match error.and_then(|error| error.downcast_ref()) {
            Some(ConfigError::Problems { problems, .. }) => problems.as_slice(),
            _ => &[],
        };
        events::emit(&Event::Result {
            exit: code as u8,
            error: error.map(|error| ErrorChain(error.as_ref()).to_string()),
            hint: error.and_then(advice_of).and_then(|advice| advice.hint()),
            problems,
        });
    }

    /// An error with its sources, its problems and its hint.
    pub fn error(&self, error: &anyhow::Error) {
        let style = self.notes;
        self.note(format!("{} {}", style.red("error:"), ErrorChain(error.as_ref())));
        if let Some(ConfigError::Problems { problems, .. }) = error.downcast_ref() {
            let width = problems.iter().map(|p| p.path.len()).max().unwrap_or(0);
            for problem in problems {
                let path = format!("{:width$}", problem.path);
                self.note(format!("  {}  {}", style.cyan(path), problem.message));
            }
        }
        if let Some(hint) = advice_of(error).and_then(|advice| advice.hint()) {
            self.note(format!("{} {hint}", style.green("hint:")));
        }
    }

    /// Asks, and takes `yes` or `y` for consent. Only for an interactive process.
    pub fn confirm(&self, question: &str) -> bool {
        let _ = write!(io::stderr(), "{question} [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).is_ok()
            && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }
}
