//! The file of variables: every value of a request, secrets included, readable for its owner only and gone as soon as
//! OpenTofu has read it. Nothing of it is ever an argument or an environment variable.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use smol_str::SmolStr;

use super::place::unwritable;
use crate::providers::error::ProviderError;
use crate::providers::ports::Answer;
use crate::value::{Map, Value};

/// A secret that was read, as JSON: an output of a stack need not be text.
pub(super) type Revealed = Vec<(SmolStr, Json)>;

/// The file, which goes when it is dropped.
pub(super) struct VarFile(PathBuf);

impl VarFile {
    /// Writes variables into an empty private file.
    pub(super) fn write(path: PathBuf, vars: &Map, secrets: &Revealed) -> Answer<Self> {
        let text = serde_json::to_vec(&json_map(vars, secrets)?)
            .map_err(|error| ProviderError::permanent("tofu plan", format!("the variables: {error}")))?;
        let file = Self(path);
        let written =
            fs::OpenOptions::new().write(true).open(&file.0).and_then(|mut open| open.write_all(&text));
        written.map_err(|error| unwritable(&file.0, &error))?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for VarFile {
    fn drop(&mut self) {
        // The directory it lies in goes as well.
        let _ = fs::remove_file(&self.0);
    }
}

fn json_map(map: &Map, secrets: &Revealed) -> Answer<Json> {
    let entries = map.iter().map(|(name, value)| Ok((name.to_string(), json(value, secrets)?)));
    entries.collect::<Answer<serde_json::Map<_, _>>>().map(Json::Object)
}

/// A known value as plain JSON.
fn json(value: &Value, secrets: &Revealed) -> Answer<Json> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::String(text) => Json::from(text.as_str()),
        Value::List(items) => {
            Json::Array(items.iter().map(|item| json(item, secrets)).collect::<Answer<_>>()?)
        }
        Value::Map(map) => json_map(map, secrets)?,
        Value::Secret(name) => match secrets.iter().find(|(known, _)| known == name) {
            Some((_, revealed)) => revealed.clone(),
            None => {
                return Err(ProviderError::permanent(
                    "tofu plan",
                    format!("the secret `{name}` was not read"),
                ));
            }
        },
        Value::Ref(_) | Value::Template(_) | Value::Unknown => {
            return Err(ProviderError::permanent("tofu plan", "a variable is not known yet"));
        }
    })
}

/// A backend's settings as OpenTofu reads them from a file.
pub(super) fn backend_file(settings: &Map) -> String {
    settings.iter().map(|(name, value)| format!("{name} = {}\n", hcl(value))).collect()
}

/// A value in the native syntax. Text cannot become a template.
fn hcl(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Map(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, item)| format!("{} = {}", quoted(key), hcl(item))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

fn quoted(text: &str) -> String {
    // JSON's escapes are those of the language, but for what begins a template.
    let escaped = serde_json::to_string(text).unwrap_or_default();
    escaped.replace("${", "$${").replace("%{", "%%{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_data() {
        let settings: Map = [("bucket", Value::from("a${b}\"c")), ("use_lockfile", Value::Bool(true))]
            .into_iter()
            .map(|(name, value)| (SmolStr::new(name), value))
            .collect();
        assert_eq!(backend_file(&settings), "bucket = \"a$${b}\\\"c\"\nuse_lockfile = true\n");
    }

    #[test]
    fn a_secret_is_put_where_its_handle_stands() {
        let vars: Map =
            [(SmolStr::new("a"), Value::List(vec![Value::Secret("s".into())]))].into_iter().collect();
        let secrets = vec![(SmolStr::new("s"), Json::from("canary"))];
        assert_eq!(json_map(&vars, &secrets).unwrap(), serde_json::json!({ "a": ["canary"] }));
        assert!(json_map(&vars, &Vec::new()).is_err());
    }
}
