//! The functions of the plan language besides the primitives: one table for the reference, for editor
//! definitions and for "did you mean".

/// A function of the plan language.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// How it is called.
    pub signature: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// Every function of the plan language that is not a primitive.
pub const BUILTINS: [Builtin; 12] = [
    Builtin {
        name: "param",
        signature: "param(name: string, spec: map) -> any",
        doc: "Declares a parameter and yields its value. `spec` has `type` (\"string\", \"int\", \"float\", \"bool\", \"list\", \"map\"), and may have `default`, `min`, `max`, `choices`, `pattern`, `doc`. Set by `--param name=value` or `--params FILE`.",
    },
    Builtin {
        name: "secret",
        signature: "secret(name: string, spec: map) -> Secret",
        doc: "A handle to a secret, never its value. `spec.from` is `env:NAME`, `file:PATH` or `ssm:/PATH`. It may be passed where a value may be anything, such as the `vars` of `tofu_apply`.",
    },
    Builtin {
        name: "fleet_name",
        signature: "fleet_name() -> string",
        doc: "The name of the fleet, `fleet` in clawd.toml: what resources of the fleet are named and tagged after.",
    },
    Builtin {
        name: "canonical_files",
        signature: "canonical_files() -> list",
        doc: "The canonical files of the shared memory besides `architecture.md`, `goals.md` and `ops.md`: `canonical` under `[memory]` in clawd.toml.",
    },
    Builtin {
        name: "read_text",
        signature: "read_text(path: string) -> string",
        doc: "The text of a file inside the project. Every file that is read is part of the plan's inputs.",
    },
    Builtin {
        name: "read_json",
        signature: "read_json(path: string) -> any",
        doc: "A JSON file inside the project.",
    },
    Builtin {
        name: "read_toml",
        signature: "read_toml(path: string) -> map",
        doc: "A TOML file inside the project.",
    },
    Builtin {
        name: "output",
        signature: "output(name: string, value: any)",
        doc: "Sets an output of the plan. The value may hold what is known only after apply.",
    },
    Builtin {
        name: "assert",
        signature: "assert(condition: bool, message: string)",
        doc: "Ends the evaluation with the message unless the condition holds.",
    },
    Builtin {
        name: "fail",
        signature: "fail(message: string)",
        doc: "Ends the evaluation with the message.",
    },
    Builtin {
        name: "warn",
        signature: "warn(message: string)",
        doc: "Shows a warning to the reviewer; it is part of the plan.",
    },
    Builtin {
        name: "allow",
        signature: "allow(budget: map)",
        doc: "What the plan may destroy, replace and format; once, at the top level of the plan script. `destroy`, `replace` and `format` are lists of globs over `step` and `step/nested.address`; `max_destroy` and `max_replace` bound the counts. Nothing is allowed by default.",
    },
];

/// Functions of strings and lists, for "did you mean".
pub(super) const METHODS: [&str; 30] = [
    "len",
    "is_empty",
    "contains",
    "starts_with",
    "ends_with",
    "index_of",
    "sub_string",
    "to_upper",
    "to_lower",
    "trimmed",
    "replaced",
    "split",
    "chars",
    "bytes",
    "join",
    "sort",
    "keys",
    "values",
    "push",
    "insert",
    "remove",
    "filter",
    "map",
    "reduce",
    "some",
    "all",
    "find",
    "to_int",
    "to_float",
    "parse_int",
];

/// Whether a script may not define a function of this name: a reviewer must be able to trust the words.
pub(super) fn is_taken(name: &str) -> bool {
    BUILTINS.iter().any(|builtin| builtin.name == name)
        || crate::primitives::Registry::all().get(name).is_some()
        || matches!(name, "print" | "debug" | "to_string" | "to_debug")
}
