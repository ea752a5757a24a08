//! The checks as JUnit's XML, which CI systems show as tests (`github.com/testmoapp/junitxml`).

use super::{Outcome, Verified};

/// One test case a check.
#[must_use]
pub fn junit(verified: &Verified) -> String {
    let count =
        |outcome: Outcome| verified.checks.iter().filter(|check| check.outcome == outcome).count();
    let suite = format!(
        "name=\"control verify {}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"",
        escaped(&verified.fleet),
        verified.checks.len(),
        count(Outcome::Fail),
        count(Outcome::Unknown),
        count(Outcome::Skipped),
    );
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    xml.push_str(&format!("  <testsuite {suite}>\n"));
    for check in &verified.checks {
        let detail = escaped(&check.detail);
        let ended = match check.outcome {
            Outcome::Pass => String::new(),
            Outcome::Fail => format!("      <failure message=\"{detail}\"/>\n"),
            Outcome::Unknown => format!("      <error message=\"{detail}\"/>\n"),
            Outcome::Skipped => format!("      <skipped message=\"{detail}\"/>\n"),
        };
        let said = format!("{detail}\nthe same by hand: {}", escaped(&check.same));
        xml.push_str(&format!(
            "    <testcase classname=\"control.verify\" name=\"{}\">\n{ended}      \
             <system-out>{said}</system-out>\n    </testcase>\n",
            check.name
        ));
    }
    xml.push_str("  </testsuite>\n</testsuites>");
    xml
}

fn escaped(text: &str) -> String {
    [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;")]
        .iter()
        .fold(text.to_owned(), |text, (plain, entity)| text.replace(plain, entity))
}
