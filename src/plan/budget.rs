//! The budget: how much a plan may destroy, replace and format. Default: nothing. The smaller of the
//! script's and the profile's budget holds.
//!
//! A glob matches the whole of `step` or `step/nested.address`; `*` matches any characters, dots and
//! slashes included. A replace counts as a replace only. Formatting a volume that the same plan creates is
//! part of its create and costs nothing.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::action::{Action, Decision};
use crate::value::Address;

/// What is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What may be destroyed.
    #[serde(default)]
    pub destroy: Vec<String>,
    /// What may be replaced.
    #[serde(default)]
    pub replace: Vec<String>,
    /// What may be formatted.
    #[serde(default)]
    pub format: Vec<String>,
    /// How many may be destroyed; no limit beyond the globs when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_destroy: Option<u64>,
    /// How many may be replaced; no limit beyond the globs when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replace: Option<u64>,
}

/// One thing that costs budget.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost {
    /// What is done.
    pub kind: CostKind,
    /// `step` or `step/nested.address`.
    pub subject: String,
}

/// The three things that cost budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CostKind {
    /// Taken away.
    Destroy,
    /// Taken away and made anew.
    Replace,
    /// Data written over.
    Format,
}

impl CostKind {
    /// The word in `allow`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destroy => "destroy",
            Self::Replace => "replace",
            Self::Format => "format",
        }
    }
}

/// What a decision costs.
#[must_use]
pub fn costs(address: &Address, decision: &Decision) -> Vec<Cost> {
    let mut found = Vec::new();
    let mut add = |kind, subject: String| found.push(Cost { kind, subject });
    // A step with nested changes is destroyed or replaced resource by resource; counting the step as well
    // would count twice.
    if decision.nested.is_empty() {
        match decision.action {
            Action::Destroy => add(CostKind::Destroy, address.to_string()),
            Action::Replace => add(CostKind::Replace, address.to_string()),
            _ => {}
        }
    }
    for nested in &decision.nested {
        match nested.action {
            Action::Destroy => add(CostKind::Destroy, format!("{address}/{}", nested.address)),
            Action::Replace => add(CostKind::Replace, format!("{address}/{}", nested.address)),
            _ => {}
        }
    }
    if decision.formats() {
        add(CostKind::Format, address.to_string());
    }
    found
}

/// What stands in the way of applying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// What no glob covers.
    pub uncovered: Vec<Cost>,
    /// What exceeds a count: the kind, the count, the maximum.
    pub exceeded: Vec<(CostKind, u64, u64)>,
    /// The `allow` line that would cover the whole plan.
    pub allow_line: String,
}

/// A glob that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{glob}` is not a valid glob: {message}")]
pub struct BadGlob {
    /// The glob.
    pub glob: String,
    /// What is wrong with it.
    pub message: String,
}

fn compile(globs: &[String]) -> Result<Vec<GlobMatcher>, BadGlob> {
    globs
        .iter()
        .map(|glob| {
            GlobBuilder::new(&brackets_as_such(glob))
                .literal_separator(false)
                .backslash_escape(true)
                .build()
                .map(|glob| glob.compile_matcher())
                .map_err(|error| BadGlob { glob: glob.clone(), message: error.kind().to_string() })
        })
        .collect()
}

/// A glob whose brackets match themselves: they stand in nested addresses, `host["a"]`.
fn brackets_as_such(glob: &str) -> String {
    let mut literal = String::with_capacity(glob.len());
    let mut escaped = false;
    for c in glob.chars() {
        if matches!(c, '[' | ']') && !escaped {
            literal.push('\\');
        }
        escaped = c == '\\' && !escaped;
        literal.push(c);
    }
    literal
}

/// The glob that matches a subject and nothing else.
fn exactly(subject: &str) -> String {
    let mut glob = String::with_capacity(subject.len());
    for c in subject.chars() {
        if matches!(c, '*' | '?' | '{' | '}' | '\\') {
            glob.push('\\');
        }
        glob.push(c);
    }
    glob
}

impl Budget {
    /// Checks that all globs are valid.
    ///
    /// # Errors
    /// The first glob that is not.
    pub fn check_globs(&self) -> Result<(), BadGlob> {
        [&self.destroy, &self.replace, &self.format]
            .into_iter()
            .try_for_each(|globs| compile(globs).map(|_| ()))
    }

    fn globs(&self, kind: CostKind) -> &[String] {
        match kind {
            CostKind::Destroy => &self.destroy,
            CostKind::Replace => &self.replace,
            CostKind::Format => &self.format,
        }
    }

    /// Whether the costs of a whole run are covered; `None` when they are.
    ///
    /// # Errors
    /// When a glob is not valid.
    pub fn excess(&self, costs: &[Cost]) -> Result<Option<Excess>, BadGlob> {
        let mut uncovered = Vec::new();
        let mut exceeded = Vec::new();
        for kind in [CostKind::Destroy, CostKind::Replace, CostKind::Format] {
            let matchers = compile(self.globs(kind))?;
            let of_kind = costs.iter().filter(|cost| cost.kind == kind);
            uncovered.extend(
                of_kind
                    .clone()
                    .filter(|cost| !matchers.iter().any(|glob| glob.is_match(&cost.subject)))
                    .cloned(),
            );
            let most = match kind {
                CostKind::Destroy => self.max_destroy,
                CostKind::Replace => self.max_replace,
                CostKind::Format => None,
            };
            let count = of_kind.count() as u64;
            if let Some(most) = most.filter(|most| count > *most) {
                exceeded.push((kind, count, most));
            }
        }
        if uncovered.is_empty() && exceeded.is_empty() {
            return Ok(None);
        }
        Ok(Some(Excess { uncovered, exceeded, allow_line: allow_line(costs) }))
    }
}

/// The `allow` line that covers exactly these costs.
fn allow_line(costs: &[Cost]) -> String {
    let mut parts = Vec::new();
    for kind in [CostKind::Destroy, CostKind::Replace, CostKind::Format] {
        let subjects: Vec<String> = costs
            .iter()
            .filter(|cost| cost.kind == kind)
            .map(|cost| quote(&exactly(&cost.subject)))
            .collect();
        if !subjects.is_empty() {
            parts.push(format!("{}: [{}]", kind.as_str(), subjects.join(", ")));
        }
        if kind != CostKind::Format && !subjects.is_empty() {
            parts.push(format!("max_{}: {}", kind.as_str(), subjects.len()));
        }
    }
    format!("allow(#{{ {} }});", parts.join(", "))
}

/// A Rhai string literal; backticks spare the quotes inside nested addresses.
fn quote(text: &str) -> String {
    if text.contains('"') && !text.contains(['`', '$']) {
        format!("`{text}`")
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_allows_a_key_allows_that_key_alone() {
        let costs = |key: &str| {
            vec![cost(CostKind::Destroy, &format!("tofu_apply.x/a.b[{}]", serde_json::json!(key)))]
        };
        for (key, other) in [
            ("a\"b", "a'b"),
            ("a\\b", "a/b"),
            ("{a", "a"),
            ("{a,b}", "a"),
            ("*", "x"),
            ("a?", "ab"),
            ("[a]", "a"),
        ] {
            let budget = Budget { destroy: vec![exactly(&costs(key)[0].subject)], ..Budget::default() };
            assert_eq!(budget.excess(&costs(key)), Ok(None), "{key}");
            assert!(budget.excess(&costs(other)).is_ok_and(|excess| excess.is_some()), "{key} {other}");
        }
    }

    fn cost(kind: CostKind, subject: &str) -> Cost {
        Cost { kind, subject: subject.to_owned() }
    }

    #[test]
    fn nothing_is_allowed_by_default_and_the_line_is_exact() {
        let costs = [
            cost(CostKind::Replace, "tofu_apply.fleet/aws_instance.host[\"CLAWDINATOR-1\"]"),
            cost(CostKind::Format, "mount_volume.a"),
        ];
        let excess = Budget::default().excess(&costs).unwrap().expect("over budget");
        assert_eq!(excess.uncovered, costs);
        assert_eq!(
            excess.allow_line,
            "allow(#{ replace: [`tofu_apply.fleet/aws_instance.host[\"CLAWDINATOR-1\"]`], max_replace: 1, format: [\"mount_volume.a\"] });"
        );
    }

    #[test]
    fn globs_cover_and_counts_bound() {
        let costs = [
            cost(CostKind::Destroy, "tofu_apply.x/host[\"a\"]"),
            cost(CostKind::Destroy, "tofu_apply.x/host[\"b\"]"),
        ];
        let mut budget = Budget { destroy: vec!["tofu_apply.x/host[*]".into()], ..Budget::default() };
        assert_eq!(budget.excess(&costs).unwrap(), None);
        budget.max_destroy = Some(1);
        assert_eq!(budget.excess(&costs).unwrap().unwrap().exceeded, [(CostKind::Destroy, 2, 1)]);
        budget.destroy = vec!["tofu_apply.y/*".into()];
        assert_eq!(budget.excess(&costs).unwrap().unwrap().uncovered.len(), 2);
    }

    #[test]
    fn a_replace_counts_as_a_replace_only() {
        let address: Address = "tofu_apply.x".parse().unwrap();
        let decision = Decision::new(Action::Replace, "", crate::value::Value::Null);
        assert_eq!(costs(&address, &decision), [cost(CostKind::Replace, "tofu_apply.x")]);
    }
}
