//! The modules that come with clawd: ordinary plan language, built only from primitives, embedded.

/// Module names and sources.
pub const MODULES: [(&str, &str); 5] = [
    ("std/fleet", include_str!("../../stdlib/fleet.rhai")),
    ("std/image", include_str!("../../stdlib/image.rhai")),
    ("std/memory", include_str!("../../stdlib/memory.rhai")),
    ("std/stack", include_str!("../../stdlib/stack.rhai")),
    ("std/storage", include_str!("../../stdlib/storage.rhai")),
];

pub(super) fn source(name: &str) -> Option<&'static str> {
    MODULES.iter().find(|(module, _)| *module == name).map(|(_, source)| *source)
}
