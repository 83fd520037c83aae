//! Flakes as nix tells of them: what a reference means, whether it means the same tomorrow, and the expression that takes an
//! image's derivation apart.

use serde::Deserialize;

use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, ImageSource};

/// The parts of `nix flake metadata --json` that matter.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) original: Reference,
    #[serde(default)]
    pub(super) revision: Option<String>,
    #[serde(default, rename = "dirtyRevision")]
    dirty_revision: Option<String>,
    #[serde(default)]
    locked: Option<Reference>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Reference {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    rev: Option<String>,
    #[serde(default, rename = "narHash")]
    nar_hash: Option<String>,
}

impl Reference {
    /// A tree on this machine: what it holds now is what is meant.
    pub(super) fn is_local(&self) -> bool {
        self.kind == "path"
            || self.kind == "git" && self.url.as_deref().is_some_and(|url| url.starts_with("file:"))
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.rev.is_some() || self.nar_hash.is_some()
    }
}

impl Metadata {
    /// A git tree without a revision has changes that are not committed.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty_revision.is_some()
            || self.revision.is_none()
                && self.locked.as_ref().is_some_and(|it| it.kind == "git" && it.rev.is_none())
    }
}

/// The expression that takes an image's derivation apart. A string in it is JSON, which is nix but for `${`.
pub(super) fn taken_apart(source: &ImageSource<'_>) -> String {
    let derivation = match source.variant {
        None => "x".to_owned(),
        Some(variant) => {
            let quoted = serde_json::Value::from(variant).to_string().replace("${", "\\${");
            format!(
                "(let images = x.config.system.build.images or (throw \"it has no `config.system.build.images`: NixOS \
                 24.11 or newer has them\"); in images.${{{quoted}}} or (throw (\"there is no image variant \" + \
                 {quoted} + \"; there are: \" + builtins.concatStringsSep \", \" (builtins.attrNames images))))"
            )
        }
    };
    format!(
        "x: let d = {derivation}; in if d ? drvPath then {{ drv = d.drvPath; out = d.outPath; system = d.system or null; \
         features = d.requiredSystemFeatures or []; }} else throw \"it is no derivation, so it yields no image\""
    )
}

/// Refuses references that can be seen to mean another tree tomorrow, before nix goes to fetch them.
pub(super) fn refuse_unpinned(flake: &str) -> Answer<()> {
    let (path, query) = flake.split_once('?').unwrap_or((flake, ""));
    let named =
        |key: &str| query.split('&').any(|pair| pair.split_once('=').is_some_and(|(name, _)| name == key));
    let is_revision = |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pinned = named("rev") || named("narHash");
    let example = match path.split_once(':') {
        Some(("github" | "gitlab" | "sourcehut", rest)) => {
            let mut parts = rest.split('/');
            let repository = parts.by_ref().take(2).collect::<Vec<_>>().join("/");
            if pinned || parts.next().is_some_and(is_revision) {
                return Ok(());
            }
            format!("{}:{repository}/REVISION", path.split(':').next().unwrap_or_default())
        }
        Some((scheme, _)) if scheme.starts_with("git+") && scheme != "git+file" && !pinned => {
            format!("{path}?rev=REVISION")
        }
        // A word alone is looked up in the registry of whoever runs it.
        None if !path.is_empty() && !path.starts_with(['.', '/', '~']) && !path.contains('/') => {
            "github:OWNER/REPOSITORY/REVISION".to_owned()
        }
        _ => return Ok(()),
    };
    Err(ProviderError::permanent(
        "nix flake metadata",
        format!("{flake} is not pinned: it means another tree tomorrow"),
    )
    .help(format!("name a revision, {example}, or make it an input of the project's own flake")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_that_move_are_refused_before_anything_is_fetched() {
        let revision = "0123456789abcdef0123456789abcdef01234567";
        for pinned in [
            ".",
            "./images",
            "/abs",
            "path:./x",
            "git+file:///x",
            &format!("github:a/b/{revision}"),
            &format!("github:a/b?rev={revision}"),
            &format!("git+https://example.org/x?rev={revision}"),
            "https://example.org/x.tar.gz",
        ] {
            assert!(refuse_unpinned(pinned).is_ok(), "{pinned}");
        }
        for moving in
            ["github:a/b", "github:a/b/main", "gitlab:a/b?ref=main", "git+ssh://git@example.org/x", "nixpkgs"]
        {
            let error = refuse_unpinned(moving).unwrap_err();
            assert!(error.message.contains("is not pinned"), "{moving}: {error}");
        }
    }

    #[test]
    fn a_variant_cannot_break_out_of_the_expression() {
        let source =
            ImageSource { flake: ".#x", variant: Some("a\"; ${builtins.exit}"), system: "x86_64-linux" };
        let expression = taken_apart(&source);
        assert!(expression.contains(r#"images.${"a\"; \${builtins.exit}"}"#), "{expression}");
    }
}
