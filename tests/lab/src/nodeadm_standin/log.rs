//! Log lines as nodeadm's logger (zap, production form) prints them: JSON on stderr.

use serde_json::{Map, Value, json};

fn line(level: &str, message: &str, fields: Map<String, Value>) {
    let now = jiff::Timestamp::now();
    let mut entry = Map::new();
    entry.insert("level".into(), level.into());
    entry.insert(
        "ts".into(),
        json!(now.as_second() as f64 + f64::from(now.subsec_nanosecond()) / 1e9),
    );
    entry.insert("caller".into(), "nodeadm-standin".into());
    entry.insert("msg".into(), message.into());
    entry.extend(fields);
    crate::output::progress(&Value::Object(entry).to_string());
}

pub(super) fn info(message: &str, fields: &[(&str, Value)]) {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    line("info", message, fields.collect());
}

pub(super) fn warn(message: &str, error: &str) {
    line("warn", message, Map::from_iter([("error".to_owned(), error.into())]));
}

pub(super) fn fatal(message: &str, error: &str) {
    line("fatal", message, Map::from_iter([("error".to_owned(), error.into())]));
}
