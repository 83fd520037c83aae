//! Rhai's types in the words of the documentation.

/// A Rhai type in the words of the documentation.
pub(super) fn type_name(name: &str) -> &str {
    match name {
        "i64" => "int",
        "f64" => "float",
        "&str | ImmutableString | String" | "string" | "alloc::string::String" => "string",
        "array" => "list",
        "()" => "nothing, `()`,",
        other if other.ends_with("Deferred") => "value not known yet",
        other if other.ends_with("Secret") => "secret",
        "Fn" => "function",
        other if other.starts_with("core::ops::range") || other.starts_with("range") => "range",
        other => other,
    }
}

/// The article of a type's name.
pub(super) fn article(name: &str) -> &'static str {
    if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}
