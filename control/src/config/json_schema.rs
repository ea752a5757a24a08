//! The fleet file's shape as JSON Schema (draft 2020-12): made from [`schema`](super::schema), so that
//! an editor says what `control` says. What a shape cannot tell (`min` above `desired`) is `control`'s
//! alone to say. Pure.

use serde_json::{Map, Value, json};

use crate::config::schema::{Field, Shape};

/// Where the published schema is known by; nothing is fetched from there.
const ID: &str = "https://rollcall.dev/schema/fleet-v1alpha1.json";

/// The schema of a document.
#[must_use]
pub fn of(shape: &Shape) -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("$id".into(), ID.into());
    schema.insert("title".into(), "Rollcall fleet".into());
    if let Value::Object(inner) = value(shape) {
        schema.extend(inner);
    }
    Value::Object(schema)
}

fn value(shape: &Shape) -> Value {
    match shape {
        Shape::Fields(fields) => fields_of(fields),
        Shape::List(item) => json!({"type": "array", "items": value(item)}),
        Shape::Map(item) => json!({"type": "object", "additionalProperties": value(item)}),
        Shape::Numbered(item) => json!({
            "type": "object", "patternProperties": {"^[0-9]+$": value(item)},
            "additionalProperties": false,
        }),
        Shape::Text => json!({"type": "string"}),
        Shape::Count => json!({"type": "integer", "minimum": 0}),
        Shape::Switch => json!({"type": "boolean"}),
        Shape::Word(words) => json!({"enum": words}),
        Shape::TextOr(fields) => json!({"oneOf": [{"type": "string"}, fields_of(fields)]}),
    }
}

fn fields_of(fields: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in fields {
        let mut schema = value(&field.shape);
        schema["description"] = field.about.into();
        properties.insert(field.name.into(), schema);
    }
    let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::FLEET;

    const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fleet.schema.json");

    #[test]
    fn the_published_schema_is_the_program_s() {
        let made = serde_json::to_string_pretty(&of(&FLEET)).unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(PUBLISHED, &made).unwrap();
        }
        assert_eq!(std::fs::read_to_string(PUBLISHED).unwrap(), made, "UPDATE_GOLDEN=1 renews it");
    }

    #[test]
    fn unknown_fields_are_refused_at_every_depth() {
        fn closed(schema: &Value, path: &str) {
            let Some(properties) = schema["properties"].as_object() else { return };
            assert_eq!(schema["additionalProperties"], false, "{path}");
            for (name, inner) in properties {
                assert!(
                    inner["description"].as_str().is_some_and(|d| d.len() > 8),
                    "{path}.{name}"
                );
                closed(inner, &format!("{path}.{name}"));
                closed(&inner["items"], &format!("{path}.{name}[]"));
                closed(&inner["oneOf"][1], &format!("{path}.{name}"));
            }
        }
        closed(&of(&FLEET), "");
    }
}
