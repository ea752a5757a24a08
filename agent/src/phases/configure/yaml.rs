//! YAML as nodeadm reads it: libyaml's grammar with YAML 1.1's scalars (`yes` is true, `0755` is
//! 493), merge keys, the first document only; what starts with a brace is JSON.
//!
//! The agent reads its own files with serde; this is for the documents that nodeadm reads too, where
//! another understanding of one value would be another node. Held against nodeadm itself by
//! `tests/e2e/tests/it/node_config.rs`.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Map, Value};

use super::source::BASE64;

/// The most nodes that a document may have once its aliases are written out: 16 KiB can name 10^9.
const NODES_MAX: usize = 100_000;

/// Reads the first document; a problem says its line.
///
/// # Errors
/// When it is not text, not YAML, or is larger than any configuration.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    if bytes.trim_ascii_start().starts_with(b"{") {
        let text = String::from_utf8_lossy(bytes);
        return serde_json::from_str(&text).map_err(|error| error.to_string());
    }
    let text = text(bytes)?;
    let options = granit_parser::options! { emit_comments: false };
    let events = Parser::new_from_str_with_options(&text, options);
    let mut builder = Builder { events, anchors: HashMap::new(), nodes: 0 };
    builder.document()
}

/// UTF-8, or UTF-16 that says so by its mark, of the characters that YAML allows.
fn text(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<Result<String, _>>().map(Cow::Owned)
    };
    let text = match bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes).map_err(|_| "not UTF-16".to_owned())?,
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes).map_err(|_| "not UTF-16".to_owned())?,
        _ => {
            let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
            Cow::Borrowed(std::str::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?)
        }
    };
    match text.chars().position(is_forbidden) {
        Some(at) => {
            let line = text.chars().take(at).filter(|c| *c == '\n').count() + 1;
            Err(format!("line {line}: a control character"))
        }
        None => Ok(text),
    }
}

fn is_forbidden(c: char) -> bool {
    !matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
        || c == '\u{feff}'
}

type Next<'a> = Result<(Event<'a>, Span), ScanError>;

struct Builder<'a, I: Iterator<Item = Next<'a>>> {
    events: I,
    anchors: HashMap<usize, Value>,
    nodes: usize,
}

impl<'a, I: Iterator<Item = Next<'a>>> Builder<'a, I> {
    fn document(&mut self) -> Result<Value, String> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd | Event::DocumentEnd, _) => return Ok(Value::Null),
                (event, span) => return self.node(event, span),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(format!("line {}: {}", error.marker().line(), error.info())),
            None => Err("the document ends early".into()),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Value, String> {
        self.count(1)?;
        let at = |problem: String| format!("line {}: {problem}", span.start.line());
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(&text, style, tag.as_deref()).map_err(at)?, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence()?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping()?, anchor),
            Event::Alias(id) => {
                let value = self.anchors.get(&id).cloned();
                let value = value.ok_or_else(|| at("an anchor contains itself".into()))?;
                self.count(size(&value))?;
                return Ok(value);
            }
            other => return Err(at(format!("{other:?} is out of place"))),
        };
        if anchor != 0 {
            self.count(size(&value))?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes += nodes;
        let is_over = self.nodes > NODES_MAX;
        if is_over { Err("document contains excessive aliasing".into()) } else { Ok(()) }
    }

    fn sequence(&mut self) -> Result<Value, String> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(list)),
                (event, span) => list.push(self.node(event, span)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Value, String> {
        let mut map = Map::new();
        loop {
            let (event, span) = self.next()?;
            let is_merge = match &event {
                Event::MappingEnd => return Ok(Value::Object(map)),
                Event::Scalar(text, ScalarStyle::Plain, _, None) => text == "<<",
                _ => false,
            };
            let key = self.node(event, span)?;
            let (event, span) = self.next()?;
            let is_list = matches!(event, Event::SequenceStart(..));
            let value = self.node(event, span)?;
            if is_merge {
                // In the order of the keys: what stands before it is overridden, as goyaml does.
                merge(&mut map, value, is_list)
                    .map_err(|problem| format!("line {}: {problem}", span.start.line()))?;
            } else {
                let key = key_text(key)
                    .map_err(|problem| format!("line {}: {problem}", span.start.line()))?;
                map.insert(key, value);
            }
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(|value| 1 + size(value)).sum::<usize>(),
        _ => 1,
    }
}

fn merge(map: &mut Map<String, Value>, value: Value, is_list: bool) -> Result<(), String> {
    match value {
        Value::Object(from) => map.extend(from),
        // Earlier ones take precedence.
        Value::Array(list) if is_list => {
            list.into_iter().rev().try_for_each(|one| merge(map, one, false))?;
        }
        _ => return Err("`<<` wants a map, or a list of maps".into()),
    }
    Ok(())
}

fn key_text(key: Value) -> Result<String, String> {
    match key {
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) if number.is_i64() => Ok(number.to_string()),
        Value::Number(number) if !number.is_u64() => {
            #[expect(clippy::cast_possible_truncation, reason = "goyaml prints such keys as f32")]
            let short = number.as_f64().unwrap_or_default() as f32;
            Ok(short.to_string())
        }
        other => Err(format!("`{other}` cannot be a key")),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let wrong = |tag: &str| Err(format!("cannot decode `{text}` as !!{tag}"));
    match tag.map(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:")) {
        None if style == ScalarStyle::Plain => resolve(text),
        Some(Some(Cow::Borrowed("binary"))) => {
            match BASE64.decode(text.replace(['\n', '\r'], "")) {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned().into()),
                Err(_) => wrong("binary"),
            }
        }
        Some(Some(Cow::Borrowed(core @ ("bool" | "int" | "float" | "null")))) => {
            match (core, resolve(text)?) {
                ("bool", value @ Value::Bool(_)) | ("null", value @ Value::Null) => Ok(value),
                ("int", Value::Number(number)) if !number.is_f64() => Ok(number.into()),
                ("float", Value::Number(number)) => Ok(number.into()),
                _ => wrong(core),
            }
        }
        _ => Ok(text.into()),
    }
}

/// What a plain scalar is in YAML 1.1, as goyaml knows it.
fn resolve(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            Ok(true.into())
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            Ok(false.into())
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => Err(format!("`{text}` has no place in JSON")),
        _ => Ok(number(text).unwrap_or_else(|| text.into())),
    }
}

fn number(text: &str) -> Option<Value> {
    let plain = match text.as_bytes()[0] {
        b'.' => text.to_owned(),
        b'+' | b'-' | b'0'..=b'9' => text.replace('_', ""),
        _ => return None,
    };
    integer(&plain).or_else(|| float(&plain))
}

fn integer(text: &str) -> Option<Value> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixed = |prefixes: [&str; 2]| prefixes.iter().find_map(|p| digits.strip_prefix(p));
    let (radix, digits) = if let Some(rest) = prefixed(["0x", "0X"]) {
        (16, rest)
    } else if let Some(rest) = prefixed(["0b", "0B"]) {
        (2, rest)
    } else if let Some(rest) = prefixed(["0o", "0O"]) {
        (8, rest)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits)
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    match (is_negative, i64::try_from(value)) {
        (true, Ok(value)) => Some((-value).into()),
        (true, Err(_)) => (value == i64::MIN.unsigned_abs()).then(|| i64::MIN.into()),
        (false, Ok(value)) => Some(value.into()),
        (false, Err(_)) => (!text.starts_with('+')).then(|| value.into()),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn float(text: &str) -> Option<Value> {
    let bare = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match bare.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)))
        }
        None => (bare, None),
    };
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = are_digits(whole)
        && are_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && are_digits(e));
    let value: f64 = if is_number { text.parse().ok()? } else { return None };
    value.is_finite().then(|| value.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_yaml_1_1s() {
        for (text, value) in [
            ("yes", json!(true)),
            ("off", json!(false)),
            ("'yes'", json!("yes")),
            ("!!str yes", json!("yes")),
            ("!mine 5", json!("5")),
            ("0755", json!(493)),
            ("08", json!(8.0)),
            ("0x10", json!(16)),
            ("0b11", json!(3)),
            ("0o17", json!(15)),
            ("1_000", json!(1000)),
            ("+1", json!(1)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("1.", json!(1.0)),
            ("1e999", json!("1e999")),
            ("2020-01-01", json!("2020-01-01")),
            ("0x", json!("0x")),
            ("-", json!([null])),
            ("~", json!(null)),
            ("!!int '5'", json!(5)),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(value), "{text}");
        }
        for text in [".inf", "!!int x", "!!bool 5", "a: *b", "[", "\u{1}", "? [a]\n: b", "~: a"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn merge_keys_are_taken_in_order() {
        let text = "a: &a {x: 1, k: 1}\nb: {k: 2, <<: *a, z: 3}\nc: {<<: [{x: 5}, *a]}\n";
        let value = parse(text.as_bytes()).unwrap();
        assert_eq!(value["b"], json!({"k": 1, "x": 1, "z": 3}));
        assert_eq!(value["c"], json!({"x": 5, "k": 1}));
        assert!(parse(b"a: {<<: 5}").is_err());
    }

    #[test]
    fn only_the_first_document_counts_and_braces_mean_json() {
        assert_eq!(parse(b"a: 1\n---\nb: ["), Ok(json!({"a": 1})));
        assert_eq!(parse(b""), Ok(Value::Null));
        assert_eq!(parse(b" {\"a\": 1}"), Ok(json!({"a": 1})));
        assert!(parse(b"{a: 1}").is_err());
        assert_eq!(
            parse("\u{feff}{a: 1}".as_bytes()),
            Ok(json!({"a": 1})),
            "a mark hides the brace"
        );
        assert_eq!(parse(b"\xff\xfea\x00:\x00 \x001\x00"), Ok(json!({"a": 1})));
        let problem = parse(b"a: 1\nb: [\n").unwrap_err();
        assert!(problem.starts_with("line "), "{problem}");
    }

    #[test]
    fn aliases_cannot_blow_up() {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (this, last) in ('b'..='j').zip('a'..='i') {
            bomb += &format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 9].join(","));
        }
        assert!(parse(bomb.as_bytes()).unwrap_err().contains("aliasing"));
        assert!(parse(b"a: &a [*a]").is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse("{\"a\":".repeat(100_000).as_bytes()).is_err());
    }
}
