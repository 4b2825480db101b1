//! `tenfold config schema`: the table of keys as JSON Schema 2020-12, for editors.
//!
//! Keys of later releases are left out, so that an editor does not offer what the program refuses. Strings may hold
//! `${NAME}`, so patterns allow it and choices offer it beside their words.

use serde_json::{Map, Value, json};

use super::keys::{Form, Key, Kind, ROOT};

/// The whole schema.
#[must_use]
pub fn schema() -> Value {
    let mut root = object(ROOT);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("tenfold.toml");
    root
}

fn object(keys: &'static [Key]) -> Value {
    let known = || keys.iter().filter(|key| !matches!(key.kind, Kind::Later));
    let properties: Map<String, Value> = known().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> = known().filter(|key| key.required).map(|key| key.name).collect();
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn property(key: &'static Key) -> Value {
    let mut property = of_kind(&key.kind);
    property["description"] = json!(key.doc);
    if let Some(default) = key.default.and_then(toml_to_json) {
        property["default"] = default;
    }
    if let Some(example) = toml_to_json(key.example) {
        property["examples"] = json!([example]);
    }
    property
}

fn of_kind(kind: &'static Kind) -> Value {
    const VARIABLE: &str = r"\$\{";
    match kind {
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Duration { .. } => {
            json!({ "type": "string", "pattern": format!(r"^(\s*\d+\s*(ms|s|m|h|d))+$|{VARIABLE}") })
        }
        Kind::Size { .. } => {
            json!({ "type": "string", "pattern": format!(r"^\d+\s*([kKMGT]i?)?[bB]$|{VARIABLE}") })
        }
        Kind::Ratio => {
            json!({ "type": "string", "pattern": format!(r"^\d{{1,3}}(\.\d{{1,4}})?\s*%$|{VARIABLE}") })
        }
        Kind::Text(Form::Secret | Form::Password | Form::RedisUrl) => {
            json!({ "type": "string", "writeOnly": true })
        }
        Kind::Text(_) | Kind::ClusterName => json!({ "type": "string" }),
        Kind::Choice { known, .. } => {
            json!({ "anyOf": [{ "enum": known }, { "type": "string", "pattern": VARIABLE }] })
        }
        Kind::List(kind) => json!({ "type": "array", "items": of_kind(kind) }),
        Kind::OneOrMany(kind) => {
            json!({ "anyOf": [of_kind(kind), { "type": "array", "items": of_kind(kind) }] })
        }
        Kind::Table(keys) => object(keys),
        Kind::Named(keys) => json!({ "type": "object", "additionalProperties": object(keys) }),
        Kind::Each(keys) => json!({ "type": "array", "items": object(keys) }),
        Kind::Fields => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::OneOf(kinds) => json!({ "anyOf": kinds.iter().map(of_kind).collect::<Vec<_>>() }),
        Kind::Later => json!({ "not": {} }),
    }
}

/// A TOML value from the table of keys as JSON.
#[must_use]
pub fn toml_to_json(text: &str) -> Option<Value> {
    let document: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(document.get("value")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_every_key_of_this_release_and_none_of_a_later_one() {
        let schema = schema();
        let route = &schema["properties"]["route"]["items"]["properties"];
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["properties"]["admin"]["properties"]["listen"]["default"], "127.0.0.1:9900");
        assert_eq!(schema["properties"]["cluster"]["additionalProperties"]["required"], json!(["nodes"]));
        assert_eq!(route["cache"]["anyOf"][1]["properties"]["heuristic"]["default"], false);
        assert!(route.get("waiting_room").is_none());
    }
}
