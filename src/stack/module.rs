//! A module's interface, read from its files: variables and outputs with their places, and the backend.
//!
//! Reads the native syntax (`.tf`, `.tofu`) and the JSON one. Only the top level of a module is read: expressions are
//! OpenTofu's business. What a later file overrides (`override.tf`, `*_override.tf`) wins, as in OpenTofu.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Block, Body, Structure};
use smol_str::SmolStr;

use super::types::Type;
use crate::diagnostic::{Code, Diagnostic, Origin};

/// A module's interface.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// Its variables by name.
    pub variables: BTreeMap<SmolStr, Variable>,
    /// Its outputs by name.
    pub outputs: BTreeMap<SmolStr, Output>,
    /// The kind of its backend, when it names one.
    pub backend: Option<Backend>,
    /// Variables that files of the module set, such as `terraform.tfvars`.
    pub preset: BTreeSet<SmolStr>,
    /// Directories of modules it calls, as they are written: `./hosts`, `../base`.
    pub calls: BTreeSet<String>,
}

/// A variable.
#[derive(Debug, Clone)]
pub struct Variable {
    /// What it may hold.
    pub ty: Type,
    /// Whether it must be given.
    pub required: bool,
    /// Whether OpenTofu keeps its value out of what it prints.
    pub sensitive: bool,
    /// Whether OpenTofu keeps its value out of plans, so that it has to be given again to apply one.
    pub ephemeral: bool,
    /// What it means.
    pub description: Option<String>,
    /// Where it is declared.
    pub origin: Origin,
}

/// An output.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether OpenTofu keeps its value out of what it prints.
    pub sensitive: bool,
    /// Where it is declared.
    pub origin: Origin,
}

/// The kind of a module with a `cloud` block.
pub const CLOUD: &str = "cloud";

/// Where the state is.
#[derive(Debug, Clone)]
pub struct Backend {
    /// `s3`, `local`, or [`CLOUD`].
    pub kind: String,
    /// The settings that the module itself makes, with those texts that are written out.
    pub settings: BTreeMap<String, Option<String>>,
    /// The block in the language.
    pub text: String,
}

/// What some editors begin a file with.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// One file of a module.
#[derive(Debug, Clone, Copy)]
pub struct SourceFile<'a> {
    /// Its path, relative to the project.
    pub path: &'a Arc<str>,
    /// Its text.
    pub text: &'a str,
}

/// Which files of a directory OpenTofu reads as parts of a module, in the order in which it merges them.
///
/// A `.tofu` file stands in for the `.tf` file of the same name; overrides come last.
#[must_use]
pub fn module_files<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let names: BTreeSet<&str> =
        names.into_iter().filter(|name| !name.starts_with('.') && !name.ends_with('~')).collect();
    let replaced = |name: &str| match name.strip_suffix(".tf.json") {
        Some(stem) => names.contains(format!("{stem}.tofu.json").as_str()),
        None => name.strip_suffix(".tf").is_some_and(|stem| names.contains(format!("{stem}.tofu").as_str())),
    };
    let stem = |name: &'a str| {
        [".tofu.json", ".tf.json", ".tofu", ".tf"].into_iter().find_map(|suffix| name.strip_suffix(suffix))
    };
    let (overrides, plain): (Vec<&str>, Vec<&str>) =
        names.iter().copied().filter(|name| stem(name).is_some() && !replaced(name)).partition(|name| {
            stem(name).is_some_and(|stem| stem == "override" || stem.ends_with("_override"))
        });
    plain.into_iter().chain(overrides).collect()
}

/// Whether OpenTofu takes values of variables from a file of this name by itself.
#[must_use]
pub fn is_preset_file(name: &str) -> bool {
    matches!(name, "terraform.tfvars" | "terraform.tfvars.json")
        || name.ends_with(".auto.tfvars")
        || name.ends_with(".auto.tfvars.json")
}

impl Module {
    /// Reads a module from its files, in the order of `module_files`.
    ///
    /// # Errors
    /// Everything in them that is no valid HCL or no valid declaration.
    pub fn read(files: &[SourceFile<'_>]) -> Result<Self, Vec<Diagnostic>> {
        let mut module = Self::default();
        let mut problems = Vec::new();
        for file in files {
            // OpenTofu takes a mark of the byte order for nothing; it is one character of no width.
            let file = &SourceFile { text: file.text.trim_start_matches(BYTE_ORDER_MARK), ..*file };
            let read = if file.path.ends_with(".json") { json_body(file) } else { body(file) };
            match read {
                Ok(body) => module.add(&body, file, &mut problems),
                Err(problem) => problems.push(*problem),
            }
        }
        if problems.is_empty() { Ok(module) } else { Err(problems) }
    }

    /// Notes the variables that a file of values sets.
    ///
    /// # Errors
    /// When it is no valid HCL.
    pub fn read_preset(&mut self, file: SourceFile<'_>) -> Result<(), Box<Diagnostic>> {
        let body = if file.path.ends_with(".json") { json_body(&file)? } else { body(&file)? };
        self.preset.extend(body.attributes().map(|attribute| SmolStr::new(attribute.key.as_str())));
        Ok(())
    }

    fn add(&mut self, body: &Body, file: &SourceFile<'_>, problems: &mut Vec<Diagnostic>) {
        for block in body.blocks() {
            let label = || block.labels.first().map(|label| SmolStr::new(label.as_str()));
            match (block.ident.as_str(), label()) {
                ("variable", Some(name)) => match Variable::read(block, file, self.variables.get(&name)) {
                    Ok(variable) => {
                        self.variables.insert(name, variable);
                    }
                    Err(problem) => problems.push(*problem),
                },
                ("output", Some(name)) => {
                    let before = self.outputs.get(&name).is_some_and(|output| output.sensitive);
                    let sensitive = bool_of(block, "sensitive").unwrap_or(before);
                    self.outputs.insert(name, Output { sensitive, origin: origin_of(block, file) });
                }
                ("terraform", _) => {
                    for backend in block.body.get_blocks("backend") {
                        self.backend = Backend::read(backend, file);
                    }
                    if block.body.has_blocks("cloud") {
                        self.backend = Some(Backend::cloud());
                    }
                }
                ("module", Some(_)) => {
                    let source = block.body.get_attribute("source").and_then(|source| source.value.as_str());
                    let local = source.filter(|source| source.starts_with("./") || source.starts_with("../"));
                    self.calls.extend(local.map(str::to_owned));
                }
                _ => {}
            }
        }
    }
}

impl Variable {
    fn read(block: &Block, file: &SourceFile<'_>, before: Option<&Self>) -> Result<Self, Box<Diagnostic>> {
        let ty = match block.body.get_attribute("type") {
            None => before.map_or(Type::Any, |variable| variable.ty.clone()),
            Some(attribute) => declared(&attribute.value).map_err(|error| {
                let name = block.labels.first().map_or("", |label| label.as_str());
                Box::new(
                    Diagnostic::error(Code::StackModule, format!("the type of variable `{name}`: {error}"))
                        .at(place(file, attribute.span())),
                )
            })?,
        };
        let has_default = block.body.has_attribute("default");
        let description = block.body.get_attribute("description").and_then(|it| it.value.as_str());
        Ok(Self {
            ty,
            required: before.map_or(!has_default, |variable| variable.required && !has_default),
            sensitive: bool_of(block, "sensitive")
                .unwrap_or(before.is_some_and(|variable| variable.sensitive)),
            ephemeral: bool_of(block, "ephemeral")
                .unwrap_or(before.is_some_and(|variable| variable.ephemeral)),
            description: description.map(str::to_owned).or_else(|| before?.description.clone()),
            origin: origin_of(block, file),
        })
    }
}

/// A type; in JSON syntax it stands in a string.
fn declared(expression: &Expression) -> Result<Type, String> {
    match expression.as_str() {
        Some(text) if text.contains('(') => Type::parse(text),
        _ => Type::read(expression),
    }
}

impl Backend {
    /// What a `cloud` block means: the state is in a service, which names workspaces in its own way.
    fn cloud() -> Self {
        Self { kind: CLOUD.to_owned(), settings: BTreeMap::new(), text: String::new() }
    }

    fn read(block: &Block, file: &SourceFile<'_>) -> Option<Self> {
        let kind = block.labels.first()?.as_str().to_owned();
        let literal = |attribute: &hcl_edit::structure::Attribute| {
            (attribute.key.as_str().to_owned(), attribute.value.as_str().map(str::to_owned))
        };
        let settings = block.body.attributes().map(literal).collect();
        let written = block.span().and_then(|span| file.text.get(span)).map(str::to_owned);
        // A file in JSON has no block to quote.
        let text = written.unwrap_or_else(|| Body::builder().block(block.clone()).build().to_string());
        Some(Self { kind, settings, text })
    }
}

fn bool_of(block: &Block, key: &str) -> Option<bool> {
    block.body.get_attribute(key).and_then(|attribute| attribute.value.as_bool())
}

fn origin_of(block: &Block, file: &SourceFile<'_>) -> Origin {
    place(file, block.ident.span())
}

/// The place of a span of bytes.
fn place(file: &SourceFile<'_>, span: Option<std::ops::Range<usize>>) -> Origin {
    let span = span.unwrap_or(0..0);
    let before = file.text.get(..span.start).unwrap_or_default();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let line = number(before.matches('\n').count() + 1);
    let column = number(before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    let text = file.text.get(span).unwrap_or_default();
    let length = number(text.lines().next().unwrap_or_default().chars().count());
    Origin { length, ..Origin::at(Arc::clone(file.path), line, column) }
}

fn body(file: &SourceFile<'_>) -> Result<Body, Box<Diagnostic>> {
    hcl_edit::parser::parse_body(file.text).map_err(|error| {
        let at = |number: usize| u32::try_from(number).unwrap_or(1);
        let origin =
            Origin::at(Arc::clone(file.path), at(error.location().line()), at(error.location().column()));
        Box::new(
            Diagnostic::error(
                Code::StackModule,
                format!("`{}` is not valid HCL: {}", file.path, error.message()),
            )
            .at(Origin { length: 1, ..origin })
            .help("`tofu fmt` and `tofu validate` say more about a module"),
        )
    })
}

/// A file in JSON syntax as the blocks it means. Only what `Module::add` looks at is kept.
fn json_body(file: &SourceFile<'_>) -> Result<Body, Box<Diagnostic>> {
    let json: serde_json::Value = serde_json::from_str(file.text).map_err(|error| {
        let at = |number: usize| u32::try_from(number).unwrap_or(1);
        Box::new(
            Diagnostic::error(Code::StackModule, format!("`{}` is not valid JSON: {error}", file.path)).at(
                Origin {
                    length: 1,
                    ..Origin::at(Arc::clone(file.path), at(error.line()), at(error.column()))
                },
            ),
        )
    })?;
    let mut body = Body::new();
    // A block stands as an object, or as a list of them.
    let each = |value: &serde_json::Value| match value {
        serde_json::Value::Array(items) => items.clone(),
        other => vec![other.clone()],
    };
    let Some(top) = json.as_object() else { return Ok(body) };
    for (kind, blocks) in top {
        match kind.as_str() {
            "variable" | "output" | "module" => {
                for (name, content) in each(blocks).iter().filter_map(serde_json::Value::as_object).flatten()
                {
                    for content in each(content) {
                        let block = Block::builder(ident(kind)).label(name.as_str());
                        body.push(block.attributes(attributes(&content)).build());
                    }
                }
            }
            "terraform" => {
                for content in each(blocks) {
                    let backends = content.get("backend").map(each).unwrap_or_default();
                    for (name, settings) in backends.iter().filter_map(serde_json::Value::as_object).flatten()
                    {
                        let backend = Block::builder(ident("backend")).label(name.as_str());
                        let backend = backend.attributes(attributes(settings)).build();
                        body.push(Block::builder(ident("terraform")).block(backend).build());
                    }
                }
            }
            // A file of values has attributes at its top level.
            _ => {
                if let Some(attribute) = attribute(kind, blocks) {
                    body.push(Structure::Attribute(attribute));
                }
            }
        }
    }
    Ok(body)
}

fn ident(name: &str) -> hcl_edit::Ident {
    hcl_edit::Ident::new(name)
}

fn attributes(content: &serde_json::Value) -> Vec<hcl_edit::structure::Attribute> {
    let entries = content.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| attribute(key, value)).collect()
}

fn attribute(key: &str, value: &serde_json::Value) -> Option<hcl_edit::structure::Attribute> {
    let key = hcl_edit::Ident::try_new(key).ok()?;
    Some(hcl_edit::structure::Attribute::new(key, expression(value)))
}

fn expression(value: &serde_json::Value) -> Expression {
    match value {
        serde_json::Value::String(text) => Expression::from(text.as_str()),
        serde_json::Value::Bool(value) => Expression::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Expression::from(whole),
            (None, Some(float)) => Expression::from(float),
            (None, None) => Expression::null(),
        },
        serde_json::Value::Array(items) => {
            Expression::from(items.iter().map(expression).collect::<hcl_edit::expr::Array>())
        }
        serde_json::Value::Object(entries) => Expression::from(
            entries
                .iter()
                .map(|(key, value)| {
                    let key = hcl_edit::expr::ObjectKey::from(Expression::from(key.as_str()));
                    (key, hcl_edit::expr::ObjectValue::from(expression(value)))
                })
                .collect::<hcl_edit::expr::Object>(),
        ),
        serde_json::Value::Null => Expression::null(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Module, Vec<Diagnostic>> {
        let paths: Vec<Arc<str>> = files.iter().map(|(path, _)| Arc::from(*path)).collect();
        let files: Vec<SourceFile<'_>> =
            paths.iter().zip(files).map(|(path, (_, text))| SourceFile { path, text }).collect();
        Module::read(&files)
    }

    #[test]
    fn both_syntaxes_say_the_same() {
        let native = r#"
terraform {
  backend "s3" {
    key = "x"
  }
}
variable "hosts" {
  type        = map(string)
  description = "names"
}
variable "token" {
  default   = null
  sensitive = true
}
output "ids" {
  value     = 1
  sensitive = true
}
module "near" {
  source = "./near"
}
"#;
        let json = r#"{
  "terraform": [{ "backend": { "s3": { "key": "x" } } }],
  "variable": { "hosts": { "type": "map(string)", "description": "names" }, "token": [{ "default": null, "sensitive": true }] },
  "output": { "ids": { "value": 1, "sensitive": true } },
  "module": { "near": { "source": "./near" } }
}"#;
        for module in [read(&[("m/main.tf", native)]), read(&[("m/main.tf.json", json)])] {
            let module = module.expect("valid");
            let hosts = &module.variables["hosts"];
            assert_eq!(
                (hosts.ty.to_string().as_str(), hosts.required, hosts.sensitive),
                ("map(string)", true, false)
            );
            assert_eq!(hosts.description.as_deref(), Some("names"));
            let token = &module.variables["token"];
            assert_eq!((&token.ty, token.required, token.sensitive), (&Type::Any, false, true));
            assert!(module.outputs["ids"].sensitive);
            let backend = module.backend.expect("a backend");
            assert_eq!((backend.kind.as_str(), backend.settings.contains_key("key")), ("s3", true));
            assert!(module.calls.contains("./near"));
        }
    }

    #[test]
    fn what_is_wrong_has_file_and_line() {
        let problems =
            read(&[("m/a.tf", "variable \"a\" {\n  type = strin\n}\n"), ("m/b.tf", "a {\n  b = \n}\n")])
                .expect_err("wrong");
        let told: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}: {}", problem.origin.as_ref().expect("a place"), problem.message))
            .collect();
        assert_eq!(told[0], "m/a.tf:2:3: the type of variable `a`: there is no type `strin`");
        assert!(told[1].starts_with("m/b.tf:2:7: `m/b.tf` is not valid HCL: "), "{}", told[1]);
    }

    #[test]
    fn overrides_win_and_tofu_files_stand_in() {
        assert_eq!(
            module_files([
                "b.tf",
                "a_override.tf",
                "a.tf",
                "b.tofu",
                ".x.tf",
                "README.md",
                "override.tf",
                "c.tf.json"
            ]),
            ["a.tf", "b.tofu", "c.tf.json", "a_override.tf", "override.tf"]
        );
        let module = read(&[
            ("m/a.tf", "variable \"a\" {\n  type = string\n}\n"),
            ("m/override.tf", "variable \"a\" {\n  default = \"x\"\n}\n"),
        ])
        .expect("valid");
        assert_eq!((&module.variables["a"].ty, module.variables["a"].required), (&Type::String, false));
    }
}
