//! Log lines as nodeadm's logger prints them: zap's console encoder, without time, on stderr.

use serde_json::{Map, Value};

fn line(level: &str, message: &str, fields: Map<String, Value>) {
    let fields = match fields.is_empty() {
        true => String::new(),
        false => format!(" {}", Value::Object(fields)),
    };
    crate::output::progress(&format!("{level} standin/main.go:1 {message}{fields}"));
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
