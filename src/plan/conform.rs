//! What a decision made at apply may differ in from the one that was reviewed. Anything else is stale.
//!
//! The rule: the same action, or a no-op. A step shown as unknown may turn out a no-op, read, create or
//! update; never a destroy, replace or change of data that was not shown. Nested changes must be a subset of
//! the shown ones, where weaker is allowed: replace, then update, then no-op. Outputs that were shown as
//! known must be the same. Where the shown decision was not speculative, a nested change must also do what was shown: each
//! attribute it touches was shown, with the same value as far as both are known. What was planned on one version of something
//! is not applied to another, even if the changes read the same: who moved it may have meant something else.

use std::collections::HashMap;

use super::action::{Action, Change, Decision, Nested};
use crate::value::{Path, Segment, Value};

/// One difference between what was shown and what is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs.
    pub subject: String,
    /// As it was shown.
    pub was: String,
    /// As it is now.
    pub now: String,
}

/// The differences that forbid applying `now` in place of `shown`.
#[must_use]
pub fn differences(shown: &Decision, now: &Decision) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |subject: &str, was: String, now: String| {
        found.push(Difference { subject: subject.to_owned(), was, now });
    };
    if !allowed(shown.action, now.action) {
        let with = |decision: &Decision| format!("{} ({})", decision.action.as_str(), decision.reason);
        differ("action", with(shown), with(now));
    }
    if let (Some(was), Some(is)) = (&shown.basis, &now.basis)
        && was != is
        && now.action.acts()
    {
        differ("state", was.clone(), is.clone());
    }
    if now.formats() && !shown.formats() {
        differ("data", "nothing written over".to_owned(), "formats a volume".to_owned());
    }
    if shown.action == Action::Unknown || !shown.nested.is_empty() || !now.nested.is_empty() {
        let by_address: HashMap<&str, &Nested> =
            shown.nested.iter().map(|nested| (nested.address.as_str(), nested)).collect();
        for nested in &now.nested {
            let before = by_address.get(nested.address.as_str()).copied();
            if !nested_allowed(shown, before, nested) {
                let was = before.map_or("not shown", |before| before.action.as_str());
                differ(&nested.address, was.to_owned(), nested.action.as_str().to_owned());
            }
            // Stand-ins may have gone into any value of a speculative one.
            if let Some(before) = before.filter(|before| !shown.speculative && before.action == nested.action)
            {
                attributes(before, nested, &mut differ);
            }
        }
    }
    known_outputs(&shown.planned, &now.planned, &Path::root(), &mut differ);
    found
}

fn allowed(shown: Action, now: Action) -> bool {
    now == shown
        || now == Action::NoOp
        || match shown {
            Action::Unknown => matches!(now, Action::Read | Action::Create | Action::Update),
            // Weaker is allowed: what was to be replaced may turn out to need only a change in place.
            Action::Replace => now == Action::Update,
            // A create that was begun by another try goes on as an update of what is there.
            Action::Create => now == Action::Update,
            _ => false,
        }
}

fn nested_allowed(shown: &Decision, before: Option<&Nested>, now: &Nested) -> bool {
    match before {
        Some(before) => {
            before.action == now.action
                || now.action == Action::NoOp
                || (before.action == Action::Replace && now.action == Action::Update)
        }
        // Nothing nested was shown for an unknown step: harmless changes only.
        None => {
            shown.action == Action::Unknown
                && shown.nested.is_empty()
                && matches!(now.action, Action::NoOp | Action::Read | Action::Create | Action::Update)
        }
    }
}

/// Holds the attributes that a nested change touches against those that were shown.
fn attributes(shown: &Nested, now: &Nested, differ: &mut impl FnMut(&str, String, String)) {
    let by_path: HashMap<&str, &Change> =
        shown.changes.iter().map(|change| (change.path.as_str(), change)).collect();
    for change in &now.changes {
        let subject = format!("{} {}", now.address, change.path);
        match by_path.get(change.path.as_str()) {
            None => differ(&subject, "not shown".to_owned(), show(&change.after)),
            Some(was) if may_be_same(&was.after, &change.after) => {}
            Some(was) => differ(&subject, show(&was.after), show(&change.after)),
        }
    }
    if shown.reason != now.reason {
        let reason = |nested: &Nested| nested.reason.clone().unwrap_or_else(|| "no reason".to_owned());
        differ(&now.address, reason(shown), reason(now));
    }
}

/// Whether two values are the same as far as both are known.
fn may_be_same(was: &Value, now: &Value) -> bool {
    match (was, now) {
        (Value::Unknown, _) | (_, Value::Unknown) => true,
        (Value::Map(was), Value::Map(now)) => {
            was.len() == now.len()
                && was.iter().all(|(key, was)| now.get(key).is_some_and(|now| may_be_same(was, now)))
        }
        (Value::List(was), Value::List(now)) => {
            was.len() == now.len() && was.iter().zip(now).all(|(was, now)| may_be_same(was, now))
        }
        (was, now) => was == now,
    }
}

/// Compares leaf by leaf where both sides are known.
fn known_outputs(shown: &Value, now: &Value, at: &Path, differ: &mut impl FnMut(&str, String, String)) {
    match (shown, now) {
        (Value::Unknown, _) | (_, Value::Unknown) => {}
        (Value::Map(shown), Value::Map(now)) => {
            for (key, was) in shown.iter() {
                if let Some(is) = now.get(key) {
                    known_outputs(was, is, &at.key(key.clone()), differ);
                } else {
                    differ(&format!("output {}", at.key(key.clone())), show(was), "absent".to_owned());
                }
            }
        }
        (Value::List(shown), Value::List(now)) if shown.len() == now.len() => {
            for (index, (was, is)) in shown.iter().zip(now).enumerate() {
                known_outputs(was, is, &at.index(index), differ);
            }
        }
        (shown, now) if shown == now => {}
        (was, is) => {
            let subject = match at.segments().last() {
                None => "outputs".to_owned(),
                Some(Segment::Key(_) | Segment::Index(_)) => format!("output {at}"),
            };
            differ(&subject, show(was), show(is));
        }
    }
}

fn show(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| value.kind().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Change, Effect};

    fn plain(action: Action) -> Decision {
        Decision::new(action, "reason", Value::Unknown)
    }

    fn nested(step: Action, changes: &[(&str, Action)]) -> Decision {
        let mut decision = plain(step);
        decision.nested = changes
            .iter()
            .map(|(address, action)| Nested {
                address: (*address).to_owned(),
                action: *action,
                changes: vec![],
                reason: None,
            })
            .collect();
        decision
    }

    #[test]
    fn an_unknown_step_never_turns_into_a_loss() {
        for (now, fine) in [
            (Action::NoOp, true),
            (Action::Read, true),
            (Action::Create, true),
            (Action::Update, true),
            (Action::Replace, false),
            (Action::Destroy, false),
        ] {
            assert_eq!(differences(&plain(Action::Unknown), &plain(now)).is_empty(), fine, "{now:?}");
        }
        let mut formats = plain(Action::Update);
        formats.changes.push(Change {
            path: "format".into(),
            before: Value::Null,
            after: Value::Null,
            effect: Effect::Data,
        });
        assert_eq!(differences(&plain(Action::Unknown), &formats)[0].subject, "data");
    }

    #[test]
    fn nested_changes_are_a_subset_and_weaker_is_allowed() {
        let shown = nested(Action::Update, &[("a", Action::Replace), ("b", Action::Update)]);
        for (changes, fine) in [
            (&[("a", Action::Replace), ("b", Action::Update)][..], true),
            (&[("a", Action::Update)], true),
            (&[], true),
            (&[("b", Action::Replace)], false),
            (&[("b", Action::Destroy)], false),
            (&[("c", Action::Create)], false),
        ] {
            assert_eq!(differences(&shown, &nested(Action::Update, changes)).is_empty(), fine, "{changes:?}");
        }
    }

    #[test]
    fn a_nested_change_does_what_was_shown_unless_stand_ins_were_shown() {
        let with = |changes: &[(&str, Value)]| {
            let mut decision = nested(Action::Update, &[("a", Action::Update)]);
            decision.nested[0].changes = changes
                .iter()
                .map(|(path, after)| Change::write(*path, Value::Null, after.clone()))
                .collect();
            decision
        };
        let shown = with(&[("x", "one".into()), ("y", Value::Unknown)]);
        for (now, fine) in [
            (with(&[("x", "one".into())]), true),
            (with(&[("y", "two".into())]), true),
            (with(&[("x", Value::Unknown)]), true),
            (with(&[("x", "two".into())]), false),
            (with(&[("z", "one".into())]), false),
        ] {
            assert_eq!(differences(&shown, &now).is_empty(), fine, "{now:?}");
        }
        let speculative = Decision { speculative: true, ..shown };
        assert!(differences(&speculative, &with(&[("x", "two".into())])).is_empty());
    }

    #[test]
    fn a_state_that_moved_is_a_difference_unless_nothing_is_left_to_do() {
        let on = |action: Action, basis: &str| Decision { basis: Some(basis.to_owned()), ..plain(action) };
        let shown = on(Action::Update, "serial 4");
        let found = differences(&shown, &on(Action::Update, "serial 5"));
        assert_eq!((found[0].was.as_str(), found[0].now.as_str()), ("serial 4", "serial 5"));
        assert!(differences(&shown, &on(Action::NoOp, "serial 5")).is_empty());
        assert!(differences(&plain(Action::Update), &on(Action::Update, "serial 5")).is_empty());
    }

    #[test]
    fn another_known_output_is_a_difference_and_a_newly_known_one_is_not() {
        let with = |id: Value| Decision::no_op("", Value::map([("id", id)]));
        assert!(differences(&with(Value::Unknown), &with("a".into())).is_empty());
        let found = differences(&with("a".into()), &with("b".into()));
        assert_eq!((found[0].was.as_str(), found[0].now.as_str()), ("\"a\"", "\"b\""));
    }
}
