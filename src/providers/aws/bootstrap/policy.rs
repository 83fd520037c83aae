//! The statement that refuses calls without TLS, and how it is put beside what a bucket's policy says already.
//!
//! Statements of others are never changed or taken away. Ours is known by its Sid, and is not written where another statement
//! says the same already.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The name of our statement.
pub(super) const SID: &str = "ClawdTlsOnly";

/// A policy with our statement in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merged {
    /// The whole document, as S3 takes it.
    pub(super) document: String,
    /// Whether a statement of our name is there and says something else.
    pub(super) replaces: bool,
    /// How many statements stay beside it.
    pub(super) others: usize,
}

fn statement(arn: &str) -> Value {
    json!({
        "Sid": SID,
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, format!("{arn}/*")],
        "Condition": { "Bool": { "aws:SecureTransport": "false" } },
    })
}

/// A list of texts; one text may stand for a list of one, and a truth value for its text.
fn texts(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::String(text) => BTreeSet::from([text.clone()]),
        Value::Bool(truth) => BTreeSet::from([truth.to_string()]),
        _ => BTreeSet::new(),
    }
}

fn is(value: &Value, wanted: &[&str]) -> bool {
    texts(value) == wanted.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>()
}

/// The only field of an object.
fn only(value: &Value) -> Option<(&String, &Value)> {
    value.as_object().filter(|fields| fields.len() == 1)?.iter().next()
}

/// Whether a condition asks for calls without TLS, and for nothing else.
fn is_without_tls(condition: &Value) -> bool {
    let Some(("Bool", test)) = only(condition).map(|(operator, test)| (operator.as_str(), test)) else {
        return false;
    };
    only(test)
        .is_some_and(|(key, value)| key.eq_ignore_ascii_case("aws:SecureTransport") && is(value, &["false"]))
}

/// Whether a statement says what ours says, in whichever form.
fn says_the_same(statement: &Value, arn: &str) -> bool {
    let who = &statement["Principal"];
    let everybody = is(who, &["*"]) || only(who).is_some_and(|(kind, who)| kind == "AWS" && is(who, &["*"]));
    everybody
        && is(&statement["Effect"], &["Deny"])
        && is(&statement["Action"], &["s3:*"])
        && is(&statement["Resource"], &[arn, &format!("{arn}/*")])
        && is_without_tls(&statement["Condition"])
}

/// Puts our statement beside those that are there; nothing when the policy says it already. Fails with the reason when what
/// is there is no policy.
pub(super) fn merge(there: Option<&str>, arn: &str) -> Result<Option<Merged>, String> {
    let mut document: Map<String, Value> = match there {
        Some(text) => serde_json::from_str(text).map_err(|error| error.to_string())?,
        None => Map::new(),
    };
    let mut statements = match document.remove("Statement") {
        None => Vec::new(),
        Some(Value::Array(statements)) => statements,
        Some(single) => vec![single],
    };
    if statements.iter().any(|statement| says_the_same(statement, arn)) {
        return Ok(None);
    }
    let before = statements.len();
    statements.retain(|statement| statement.get("Sid").and_then(Value::as_str) != Some(SID));
    let others = statements.len();
    statements.push(statement(arn));
    // Without a version S3 reads an older language, in which statements of others may mean something else: theirs stays.
    if there.is_none() {
        document.insert("Version".to_owned(), "2012-10-17".into());
    }
    document.insert("Statement".to_owned(), Value::Array(statements));
    let document = Value::Object(document).to_string();
    Ok(Some(Merged { document, replaces: others < before, others }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:s3:::states";

    fn merged(there: &Value) -> Option<Merged> {
        merge(Some(&there.to_string()), ARN).unwrap()
    }

    #[test]
    fn a_bucket_without_policy_gets_one_that_is_left_alone_afterwards() {
        let first = merge(None, ARN).unwrap().unwrap();
        assert_eq!((first.replaces, first.others), (false, 0));
        assert_eq!(merge(Some(&first.document), ARN).unwrap(), None);
    }

    #[test]
    fn statements_of_others_stay_and_ours_is_put_right() {
        let other = json!({ "Sid": "Audit", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "x" });
        let mut stale = statement(ARN);
        stale["Action"] = json!("s3:GetObject");
        let there = json!({ "Version": "2008-10-17", "Id": "p", "Statement": [other, stale] });
        let merged = merged(&there).unwrap();
        assert_eq!((merged.replaces, merged.others), (true, 1));
        let document: Value = serde_json::from_str(&merged.document).unwrap();
        let wanted = json!({ "Version": "2008-10-17", "Id": "p", "Statement": [other, statement(ARN)] });
        assert_eq!(document, wanted);
    }

    #[test]
    fn a_single_statement_need_not_be_a_list() {
        let there = json!({ "Version": "2012-10-17", "Statement": { "Sid": "Audit", "Effect": "Allow" } });
        let merged = merged(&there).unwrap();
        assert_eq!((merged.replaces, merged.others), (false, 1));
    }

    #[test]
    fn the_same_in_other_words_is_the_same() {
        let there = json!({ "Statement": {
            "Sid": "DenyInsecure", "Effect": "Deny", "Principal": { "AWS": ["*"] }, "Action": ["s3:*"],
            "Resource": ["arn:aws:s3:::states/*", "arn:aws:s3:::states"],
            "Condition": { "Bool": { "AWS:securetransport": [false] } },
        } });
        assert_eq!(merged(&there), None);
    }

    #[test]
    fn what_denies_less_is_not_the_same() {
        for (field, value) in [
            ("Effect", json!("Allow")),
            ("Principal", json!({ "AWS": "arn:aws:iam::123456789012:root" })),
            ("Action", json!("s3:GetObject")),
            ("Resource", json!("arn:aws:s3:::states/*")),
            ("Condition", json!({ "Bool": { "aws:SecureTransport": "true" } })),
            ("Condition", json!({ "Bool": { "aws:SecureTransport": "false", "aws:ViaAWSService": "true" } })),
            ("Condition", json!({ "Bool": { "aws:SecureTransport": "false" }, "IpAddress": {} })),
        ] {
            let mut less = statement(ARN);
            less["Sid"] = json!("Other");
            less[field] = value;
            let merged = merged(&json!({ "Statement": [less] })).unwrap();
            assert_eq!(merged.others, 1, "{field}");
        }
    }

    #[test]
    fn what_is_no_policy_is_an_error() {
        assert!(merge(Some("no policy"), ARN).is_err());
    }
}
