//! Label and field selectors, as strings in queries and as objects in specs. Pure.

use serde_json::Value;

use super::status::ApiError;

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// A conjunction of conditions on labels. The empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels(Vec<Term>);

impl Labels {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let bad = |part: &str| {
            // The API server's lexer stops at the first word that is no operator.
            let found = part.split_whitespace().nth(1).unwrap_or_default();
            ApiError::bad_request(format!(
                "unable to parse requirement: found '{found}', expected: in, notin, =, ==, !=, gt, lt"
            ))
        };
        let mut terms = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if !part.is_empty() {
                terms.push(parse_term(part).ok_or_else(|| bad(part))?);
            }
        }
        Ok(Self(terms))
    }

    /// Reads a `LabelSelector` object: `matchLabels` and `matchExpressions`.
    pub(super) fn from_object(selector: &Value) -> Self {
        let mut terms = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            terms.push(Term::In(key.clone(), vec![text_of(value)]));
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            terms.extend(expression_term(expression));
        }
        Self(terms)
    }

    /// Reads a `nodeSelector` map.
    pub(super) fn from_map(map: &Value) -> Self {
        let pairs = map.as_object().into_iter().flatten();
        Self(pairs.map(|(key, value)| Term::In(key.clone(), vec![text_of(value)])).collect())
    }

    /// Whether an object's `metadata.labels` satisfy every condition.
    pub(super) fn matches(&self, labels: &Value) -> bool {
        self.0.iter().all(|term| match term {
            Term::In(key, values) => {
                labels[key].as_str().is_some_and(|have| values.iter().any(|value| value == have))
            }
            Term::NotIn(key, values) => {
                labels[key].as_str().is_none_or(|have| values.iter().all(|value| value != have))
            }
            Term::Exists(key) => labels.get(key).is_some(),
            Term::Absent(key) => labels.get(key).is_none(),
        })
    }
}

/// One entry of `matchExpressions`; `None` for an operator that labels do not have.
fn expression_term(expression: &Value) -> Option<Term> {
    let key = text_of(&expression["key"]);
    let values = expression["values"].as_array().into_iter().flatten().map(text_of).collect();
    match expression["operator"].as_str()? {
        "In" => Some(Term::In(key, values)),
        "NotIn" => Some(Term::NotIn(key, values)),
        "Exists" => Some(Term::Exists(key)),
        "DoesNotExist" => Some(Term::Absent(key)),
        _ => None,
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_term(part: &str) -> Option<Term> {
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Term::NotIn(key.trim().into(), vec![value.trim().into()]));
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Some(Term::In(key.trim().into(), vec![value.trim().into()]));
    }
    if let Some(key) = part.strip_prefix('!') {
        return Some(Term::Absent(key.trim().into()));
    }
    let mut words = part.splitn(3, char::is_whitespace);
    let (key, operator, set) = (words.next()?, words.next(), words.next());
    match (operator, set) {
        (None, None) => Some(Term::Exists(key.into())),
        (Some("in"), Some(set)) => Some(Term::In(key.into(), parse_set(set)?)),
        (Some("notin"), Some(set)) => Some(Term::NotIn(key.into(), parse_set(set)?)),
        _ => None,
    }
}

fn parse_set(set: &str) -> Option<Vec<String>> {
    let inner = set.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

/// The fields that may be selected by.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.unschedulable",
    "status.phase",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
    "regarding.kind",
    "regarding.name",
    "reason",
    "type",
];

/// A conjunction of conditions on fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, bool, String)>);

impl Fields {
    /// Reads `metadata.name=a,spec.nodeName!=b`.
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let mut terms = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = part.split_once('=') {
                (field, true, value.strip_prefix('=').unwrap_or(value))
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let field = field.trim();
            if !FIELDS.contains(&field) {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
            terms.push((field.to_owned(), equal, value.trim().to_owned()));
        }
        Ok(Self(terms))
    }

    /// Whether an object satisfies every condition; a missing field is the empty string.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, equal, value)| {
            let found = field.split('.').fold(object, |at, step| &at[step]);
            (found.as_str().unwrap_or_default() == value) == *equal
        })
    }

    /// Whether the selector pins this field to this value.
    pub(super) fn requires(&self, field: &str, value: &str) -> bool {
        self.0.iter().any(|(f, equal, v)| *equal && f == field && v == value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_match_as_kubectl_documents_them() {
        let labels = json!({"env": "prod", "tier": "gpu"});
        let table = [
            ("", true),
            ("env=prod", true),
            ("env==prod,tier=gpu", true),
            ("env=prod,tier=cpu", false),
            ("env!=test", true),
            ("missing!=x", true),
            ("env in (prod,test)", true),
            ("env notin (prod, test)", false),
            ("tier", true),
            ("!tier", false),
            ("!missing", true),
        ];
        for (text, expected) in table {
            assert_eq!(Labels::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        assert!(Labels::parse("a b c").is_err());
    }

    #[test]
    fn selector_objects_know_labels_and_expressions() {
        let selector = json!({"matchLabels": {"app": "x"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["gpu"]},
            {"key": "old", "operator": "DoesNotExist"}]});
        let selector = Labels::from_object(&selector);
        assert!(selector.matches(&json!({"app": "x", "tier": "gpu"})));
        assert!(!selector.matches(&json!({"app": "x", "tier": "gpu", "old": ""})));
        assert!(!selector.matches(&json!({"app": "x"})));
    }

    #[test]
    fn field_selectors_match_and_refuse_what_is_not_indexed() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "a"}});
        let table = [
            ("spec.nodeName=a", true),
            ("spec.nodeName=b", false),
            ("spec.nodeName!=b,metadata.name=p", true),
            ("status.phase=", true),
        ];
        for (text, expected) in table {
            assert_eq!(Fields::parse(text).unwrap().matches(&pod), expected, "{text}");
        }
        let refused = Fields::parse("spec.image=x").unwrap_err();
        assert_eq!(refused.message, "field label not supported: spec.image");
    }
}
