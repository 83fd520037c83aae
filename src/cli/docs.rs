//! `clawd docs [NAME]`: the reference.

use super::Outcome;
use super::exit::Exit;
use super::terminal::Terminal;
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::docs;
use crate::primitives::Registry;
use crate::script::BUILTINS;

/// The reference of primitives, functions and diagnostics
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A primitive or function, or `codes` for the table of diagnostics; everything when not given.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// In which form.
    #[arg(long, value_enum, default_value = "markdown")]
    format: Format,
}

/// The forms of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Pages to read.
    Markdown,
    /// JSON Schema of arguments and outputs.
    JsonSchema,
    /// Definitions for editors.
    Rhai,
    /// The AWS actions the primitives need, as a policy.
    Iam,
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    let name = args.name.as_deref();
    let text = match (args.format, name) {
        (Format::Markdown, None) => Some(docs::markdown()),
        (Format::Markdown, Some("codes")) => Some(docs::codes()),
        (Format::Markdown, Some(name)) => {
            docs::primitive_markdown(name).or_else(|| docs::function_markdown(name))
        }
        (Format::JsonSchema, name) => docs::json_schema(name),
        (Format::Rhai, _) => Some(docs::rhai_definitions()),
        (Format::Iam, Some(name)) => docs::iam([name]).ok(),
        (Format::Iam, None) => docs::iam(Registry::all().names()).ok(),
    };
    match text {
        Some(text) => {
            terminal.out(&(text.trim_end().to_owned() + "\n"));
            Ok(Exit::Done)
        }
        None => {
            let name = name.unwrap_or_default();
            let known = Registry::all().names().chain(BUILTINS.map(|builtin| builtin.name)).chain(["codes"]);
            let help = nearest(name, known).map_or_else(
                || format!("there are: {}", Registry::all().names().collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            Err(Diagnostic::error(Code::Usage, format!("there is nothing called `{}`", name.escape_debug()))
                .help(help)
                .into())
        }
    }
}
