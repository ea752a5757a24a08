//! Everything that people and scripts read: data on stdout, progress and errors on stderr.

pub mod events;
pub mod log;
pub mod printer;
pub mod progress;
pub mod style;
pub mod text;

pub use printer::Printer;
pub use progress::Progress;
pub use style::Style;
