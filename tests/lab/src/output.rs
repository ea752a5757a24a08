//! The one place that prints: data on stdout, progress on stderr. A reader that has gone away is
//! no error.

use std::io::Write as _;

/// Prints data, as it is.
pub fn data(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints a line for people; nothing for an empty one.
pub fn progress(line: &str) {
    if !line.is_empty() {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}
