//! Log lines as kubelet writes them, on stderr: that is what the node's journal shows and `diagnose`
//! reads.

use std::fmt::Write as _;
use std::io::Write as _;

/// An error line.
pub(super) fn error(source: &str, message: &str, fields: &[(&str, &str)]) {
    write('E', source, message, fields);
}

/// An information line.
pub(super) fn info(source: &str, message: &str, fields: &[(&str, &str)]) {
    write('I', source, message, fields);
}

fn write(level: char, source: &str, message: &str, fields: &[(&str, &str)]) {
    let now = jiff::Timestamp::now();
    let line = line(level, now, std::process::id(), source, message, fields);
    // Nobody is left to tell when stderr is closed.
    let _closed = std::io::stderr().write_all(line.as_bytes());
}

/// `E1120 21:15:03.123456    1234 kubelet_node_status.go:107] "message" key="value"`. Pure.
fn line(
    level: char,
    now: jiff::Timestamp,
    pid: u32,
    source: &str,
    message: &str,
    fields: &[(&str, &str)],
) -> String {
    let time = now.strftime("%m%d %H:%M:%S%.6f");
    let mut line = format!("{level}{time} {pid:>7} {source}] {message:?}");
    for (key, value) in fields {
        // Writing to a string does not fail.
        let _infallible = write!(line, " {key}={value:?}");
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_kubelets() {
        let at = "2026-11-20T21:15:03.123456Z".parse().unwrap();
        let fields = [("err", "Unauthorized"), ("node", "a")];
        let source = "kubelet_node_status.go:107";
        assert_eq!(
            line('E', at, 1234, source, "Unable to register node with API server", &fields),
            "E1120 21:15:03.123456    1234 kubelet_node_status.go:107] \"Unable to register node \
             with API server\" err=\"Unauthorized\" node=\"a\"\n"
        );
    }
}
