//! The plan as JSON: what `--format json` prints, and the saved plan file, which is the same plus all that
//! applying needs. Encoding is canonical: the same plan gives the same bytes.
//!
//! Decoding trusts nothing: version, digest, shape and graph are checked, and a file that does not read back
//! to its own bytes was edited. Failure modes: `FileError`, one variant per way a file can be wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::action::{Action, Change, Decision, Nested};
use super::graph::find_cycle;
use super::step::{Step, StepId};
use super::{
    Budget, Decided, Digest, FORMAT_VERSION, Header, Plan, SecretSource, StepDecision, Target, Unmanaged,
};
use crate::diagnostic::Origin;
use crate::units::Seconds;
use crate::value::{Address, Map, Value};

/// Why a text is not a plan that can be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Not JSON, or cut off, or of another shape.
    #[error("it is not a whole plan: {0}")]
    Malformed(String),
    /// Written by another version of clawd.
    #[error("it has format version {found}, this clawd reads version {FORMAT_VERSION}")]
    Version {
        /// The version in the file.
        found: String,
    },
    /// The content does not match the digest, or the file is not what clawd wrote.
    #[error("it was changed after it was written: its digest says {stated}, its content is {actual}")]
    Edited {
        /// The digest in the file.
        stated: String,
        /// The digest of the content.
        actual: String,
    },
    /// Steps that depend on each other in a circle.
    #[error("its steps depend on each other in a circle: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// A step is there twice, or depends on one that is not there or stands after it.
    #[error("{0}")]
    Graph(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Digests {
    inputs: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanDoc<'a> {
    format_version: Cow<'a, str>,
    script: Cow<'a, str>,
    profile: Cow<'a, str>,
    fleet: Cow<'a, str>,
    digest: Digests,
    params: Cow<'a, Map>,
    summary: Value,
    steps: Vec<StepDoc<'a>>,
    unmanaged: Cow<'a, [Unmanaged]>,
    outputs: Cow<'a, Map>,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    warnings: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apply: Option<ApplyDoc<'a>>,
}

/// What only a saved plan holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyDoc<'a> {
    account: Cow<'a, str>,
    region: Cow<'a, str>,
    budget: Cow<'a, Budget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile_budget: Option<Cow<'a, Budget>>,
    secrets: Cow<'a, BTreeMap<SmolStr, SecretSource>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDoc<'a> {
    address: Cow<'a, Address>,
    primitive: Cow<'a, str>,
    name: Cow<'a, str>,
    action: Action,
    reason: Cow<'a, str>,
    args: Cow<'a, Value>,
    depends_on: Vec<Address>,
    changes: Cow<'a, [Change]>,
    nested: Cow<'a, [Nested]>,
    #[serde(default, skip_serializing_if = "<[Nested]>::is_empty")]
    drift: Cow<'a, [Nested]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    basis: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    speculative: bool,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    notes: Cow<'a, [String]>,
    origin: Cow<'a, Origin>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    after: Vec<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    planned: Option<Cow<'a, Value>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    observation: Option<Cow<'a, Value>>,
}

/// Reads a value that is there, null included; only an absent key is `None`.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'static, Value>>, D::Error> {
    Value::deserialize(deserializer).map(|value| Some(Cow::Owned(value)))
}

/// What is encoded.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    /// What people and golden files see.
    Shown,
    /// All that applying needs.
    Saved,
}

fn document<'a>(plan: &'a Plan<Decided>, extent: Extent, digest: Option<Digest>) -> PlanDoc<'a> {
    let header = &plan.header;
    let addresses = |ids: &[StepId]| ids.iter().map(|id| plan.step(*id).address.clone()).collect();
    let saved = extent == Extent::Saved;
    let steps = plan
        .decided()
        .map(|(_, step, StepDecision { decision, seen })| StepDoc {
            address: Cow::Borrowed(&step.address),
            primitive: step.address.primitive().into(),
            name: step.address.name().into(),
            action: decision.action,
            reason: decision.reason.as_str().into(),
            args: Cow::Borrowed(&step.args),
            depends_on: addresses(&step.depends_on),
            changes: decision.changes.as_slice().into(),
            nested: decision.nested.as_slice().into(),
            drift: decision.drift.as_slice().into(),
            basis: decision.basis.as_deref().map(Cow::Borrowed),
            speculative: decision.speculative,
            notes: decision.notes.as_slice().into(),
            origin: Cow::Borrowed(&step.origin),
            after: if saved { addresses(&step.after) } else { Vec::new() },
            timeout: step.timeout.filter(|_| saved),
            retries: step.retries.filter(|_| saved),
            planned: saved.then_some(Cow::Borrowed(&decision.planned)),
            observation: saved.then_some(Cow::Borrowed(seen)),
        })
        .collect();
    let Target { profile, fleet, account, region } = &header.target;
    PlanDoc {
        format_version: FORMAT_VERSION.into(),
        script: header.script.as_str().into(),
        profile: profile.as_str().into(),
        fleet: fleet.as_str().into(),
        digest: Digests { inputs: header.inputs.clone(), plan: digest },
        params: Cow::Borrowed(&header.params),
        summary: crate::value::from_typed(&plan.summary()).expect("counts have a JSON form"),
        steps,
        unmanaged: plan.phase.unmanaged.as_slice().into(),
        outputs: Cow::Borrowed(&header.outputs),
        warnings: header.warnings.as_slice().into(),
        apply: saved.then(|| ApplyDoc {
            account: account.as_str().into(),
            region: region.as_str().into(),
            budget: Cow::Borrowed(&header.budget),
            profile_budget: header.profile_budget.as_ref().map(Cow::Borrowed),
            secrets: Cow::Borrowed(&header.secrets),
        }),
    }
}

/// The digest of a plan: everything a saved file holds but the digest itself.
#[must_use]
pub fn plan_digest(plan: &Plan<Decided>) -> Digest {
    Digest::of_json(&document(plan, Extent::Saved, None)).expect("a plan always has a JSON form")
}

fn encode(plan: &Plan<Decided>, extent: Extent) -> String {
    let doc = document(plan, extent, Some(plan_digest(plan)));
    let mut text = serde_json::to_string_pretty(&doc).expect("a plan always has a JSON form");
    text.push('\n');
    text
}

/// The plan as `--format json` prints it.
#[must_use]
pub fn to_json(plan: &Plan<Decided>) -> String {
    encode(plan, Extent::Shown)
}

/// The plan as a file that can be applied.
#[must_use]
pub fn to_file(plan: &Plan<Decided>) -> String {
    encode(plan, Extent::Saved)
}

/// Reads a saved plan.
///
/// # Errors
/// When the text is not exactly what `to_file` wrote for a valid plan.
pub fn from_file(text: &str) -> Result<Plan<Decided>, FileError> {
    #[derive(Deserialize)]
    struct Versioned {
        format_version: String,
    }
    let malformed = |error: serde_json::Error| FileError::Malformed(error.to_string());
    // The version decides how the rest is read, so it is read first and alone.
    let Versioned { format_version } = serde_json::from_str(text).map_err(malformed)?;
    if format_version != FORMAT_VERSION {
        return Err(FileError::Version { found: format_version });
    }
    let doc: PlanDoc<'_> = serde_json::from_str(text).map_err(malformed)?;
    let stated = doc.digest.plan.clone();
    let plan = plan_of(doc)?;
    let actual = plan_digest(&plan);
    if stated.as_ref() != Some(&actual) || to_file(&plan) != text {
        let stated = stated.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
        return Err(FileError::Edited { stated, actual: actual.to_string() });
    }
    Ok(plan)
}

fn plan_of(doc: PlanDoc<'_>) -> Result<Plan<Decided>, FileError> {
    let apply = doc.apply.ok_or_else(|| {
        FileError::Malformed("it has no `apply` part: it was printed, not saved with -o".to_owned())
    })?;
    check_graph(&doc.steps)?;
    let positions: IndexMap<Address, ()> =
        doc.steps.iter().map(|step| (step.address.clone().into_owned(), ())).collect();
    let ids = |addresses: &[Address]| -> Result<Box<[StepId]>, FileError> {
        addresses
            .iter()
            .map(|address| {
                positions
                    .get_index_of(address)
                    .map(StepId::from_index)
                    .ok_or_else(|| FileError::Graph(format!("it names a step `{address}` that is not there")))
            })
            .collect()
    };
    let mut steps = IndexMap::with_capacity(doc.steps.len());
    let mut decisions = Vec::with_capacity(doc.steps.len());
    for step in doc.steps {
        let missing =
            |what: &str| FileError::Malformed(format!("the step `{}` has no `{what}`", step.address));
        let planned = step.planned.ok_or_else(|| missing("planned"))?.into_owned();
        let seen = step.observation.ok_or_else(|| missing("observation"))?.into_owned();
        steps.insert(
            step.address.clone().into_owned(),
            Step {
                depends_on: ids(&step.depends_on)?,
                after: ids(&step.after)?,
                address: step.address.into_owned(),
                args: step.args.into_owned(),
                timeout: step.timeout,
                retries: step.retries,
                origin: step.origin.into_owned(),
            },
        );
        decisions.push(StepDecision {
            decision: Decision {
                action: step.action,
                reason: step.reason.into_owned(),
                changes: step.changes.into_owned(),
                nested: step.nested.into_owned(),
                drift: step.drift.into_owned(),
                basis: step.basis.map(Cow::into_owned),
                speculative: step.speculative,
                planned,
                notes: step.notes.into_owned(),
                on_demand: false,
                hindrance: None,
            },
            seen,
        });
    }
    Ok(Plan {
        header: Header {
            script: doc.script.into_owned(),
            target: Target {
                profile: doc.profile.into_owned(),
                fleet: doc.fleet.into_owned(),
                account: apply.account.into_owned(),
                region: apply.region.into_owned(),
            },
            inputs: doc.digest.inputs,
            params: doc.params.into_owned(),
            outputs: doc.outputs.into_owned(),
            secrets: apply.secrets.into_owned(),
            budget: apply.budget.into_owned(),
            profile_budget: apply.profile_budget.map(Cow::into_owned),
            warnings: doc.warnings.into_owned(),
        },
        steps,
        phase: Decided { decisions, unmanaged: doc.unmanaged.into_owned(), problems: Vec::new() },
    })
}

/// Addresses are unique, dependencies exist, and each stands before the step that needs it.
fn check_graph(steps: &[StepDoc<'_>]) -> Result<(), FileError> {
    let mut positions: IndexMap<&Address, usize> = IndexMap::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        if positions.insert(&step.address, index).is_some() {
            return Err(FileError::Graph(format!("it holds the step `{}` twice", step.address)));
        }
    }
    let mut edges = Vec::with_capacity(steps.len());
    for step in steps {
        let targets: Result<Vec<usize>, FileError> = step
            .depends_on
            .iter()
            .map(|address| {
                positions.get(address).copied().ok_or_else(|| {
                    FileError::Graph(format!(
                        "the step `{}` depends on `{address}`, which is not there",
                        step.address
                    ))
                })
            })
            .collect();
        edges.push(targets?);
    }
    if let Some(cycle) = find_cycle(&edges) {
        let mut names: Vec<String> = cycle.iter().map(|index| steps[*index].address.to_string()).collect();
        names.extend(names.first().cloned());
        return Err(FileError::Cycle(names));
    }
    for (index, targets) in edges.iter().enumerate() {
        if let Some(later) = targets.iter().find(|target| **target > index) {
            return Err(FileError::Graph(format!(
                "the step `{}` stands before `{}`, which it depends on",
                steps[index].address, steps[*later].address
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(edges: &[(&str, &[usize])]) -> Plan<Decided> {
        let steps = edges
            .iter()
            .map(|(name, depends_on)| {
                let address: Address = name.parse().unwrap();
                let step = Step {
                    address: address.clone(),
                    args: Value::map([("name", Value::from(*name))]),
                    depends_on: depends_on.iter().map(|index| StepId::from_index(*index)).collect(),
                    after: Box::default(),
                    timeout: Some(Seconds(60)),
                    retries: None,
                    origin: Origin::at("plans/x.rhai".into(), 1, 2),
                };
                (address, step)
            })
            .collect::<IndexMap<_, _>>();
        let decisions = steps
            .keys()
            .map(|_| StepDecision { decision: Decision::unknown("because"), seen: Value::Null })
            .collect();
        Plan {
            header: Header {
                script: "plans/x.rhai".into(),
                target: Target {
                    profile: "sim".into(),
                    fleet: "demo".into(),
                    account: "0".into(),
                    region: "r".into(),
                },
                inputs: Digest::of_bytes(b"x"),
                params: Map::new(),
                outputs: Map::new(),
                secrets: BTreeMap::new(),
                budget: Budget::default(),
                profile_budget: None,
                warnings: vec![],
            },
            steps,
            phase: Decided { decisions, unmanaged: vec![], problems: vec![] },
        }
    }

    #[test]
    fn a_saved_plan_reads_back() {
        let plan = sample(&[("a.x", &[]), ("b.x", &[0])]);
        assert_eq!(from_file(&to_file(&plan)), Ok(plan));
    }

    #[test]
    fn every_way_a_file_can_be_wrong_has_its_error() {
        let plan = sample(&[("a.x", &[]), ("b.x", &[0])]);
        let text = to_file(&plan);
        assert!(matches!(from_file(&text[..text.len() / 2]), Err(FileError::Malformed(_))));
        assert!(matches!(from_file(&to_json(&plan)), Err(FileError::Malformed(_))));
        let edited = text.replace("\"because\"", "\"be cause\"");
        assert!(matches!(from_file(&edited), Err(FileError::Edited { .. })));
        let spaced = text.replace("{\n", "{ \n");
        assert!(matches!(from_file(&spaced), Err(FileError::Edited { .. })));
        let older = text.replace("\"format_version\": \"1\"", "\"format_version\": \"0\"");
        assert!(matches!(from_file(&older), Err(FileError::Version { .. })));
    }

    #[test]
    fn a_circle_with_a_valid_digest_is_named() {
        let text = to_file(&sample(&[("a.x", &[1]), ("b.x", &[0])]));
        let error = from_file(&text).unwrap_err();
        assert_eq!(error, FileError::Cycle(vec!["a.x".into(), "b.x".into(), "a.x".into()]));
        let out_of_order = to_file(&sample(&[("a.x", &[1]), ("b.x", &[])]));
        assert!(matches!(from_file(&out_of_order), Err(FileError::Graph(_))));
    }
}
