//! What a bucket of states must be, and what it lacks. Pure: what was looked at goes in, the changes come out with all that
//! has to be written.
//!
//! What others set stays, but for what would let states be read, lost or owned by strangers. What is stronger than asked for,
//! such as encryption with a key of KMS, stays too.

#![deny(clippy::disallowed_methods)]

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketVersioningStatus, ExpirationStatus, LifecycleRule,
    LifecycleRuleFilter, ObjectOwnership, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionRule, Tag,
};

use super::model::{BucketChange, BucketPlan, Lifecycle, Seen, Wanted, Write};
use super::policy;
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, TAG_FLEET, TAG_STEP};

/// What stands for the step that made the bucket.
const STEP: &str = "bootstrap";

/// The name of our lifecycle rule.
const RULE: &str = "clawd-abort-incomplete-uploads";

/// An upload that is not complete after so many days never will be.
const DAYS: i32 = 7;

fn change(
    setting: &'static str,
    before: Option<String>,
    after: impl Into<String>,
    write: Write,
) -> Option<BucketChange> {
    Some(BucketChange { setting, before, after: after.into(), write })
}

/// Decides what to do about a bucket that was looked at; `None` when it is not there.
pub(super) fn decide(wanted: &Wanted, seen: Option<&Seen>) -> Answer<BucketPlan> {
    let nothing = Seen::default();
    let there = seen.unwrap_or(&nothing);
    let changes = [
        ownership(there),
        versioning(there),
        encryption(there),
        tls_only(wanted, there)?,
        public_access(there),
        lifecycle(there),
        tags(wanted, there)?,
    ];
    let changes = changes.into_iter().flatten().collect();
    Ok(BucketPlan { exists: seen.is_some(), changes, notes: notes(wanted, there) })
}

fn ownership(seen: &Seen) -> Option<BucketChange> {
    if seen.ownership == Some(ObjectOwnership::BucketOwnerEnforced) {
        return None;
    }
    let before = seen.ownership.as_ref().map(|it| it.as_str().to_owned());
    change("ownership", before, "BucketOwnerEnforced: the account owns all objects", Write::Ownership)
}

fn versioning(seen: &Seen) -> Option<BucketChange> {
    if seen.versioning == Some(BucketVersioningStatus::Enabled) {
        return None;
    }
    let before = seen.versioning.as_ref().map(|it| it.as_str().to_owned());
    change("versioning", before, "Enabled: older states stay", Write::Versioning)
}

/// The algorithm that objects are encrypted with by default.
fn algorithm(seen: &Seen) -> Option<&ServerSideEncryption> {
    let rule = seen.encryption.as_ref()?;
    rule.apply_server_side_encryption_by_default().map(ServerSideEncryptionByDefault::sse_algorithm)
}

fn encryption(seen: &Seen) -> Option<BucketChange> {
    let rule = seen.encryption.as_ref();
    let has_key = rule.and_then(ServerSideEncryptionRule::bucket_key_enabled) == Some(true);
    let before = match algorithm(seen) {
        None => None,
        Some(ServerSideEncryption::Aes256) if !has_key => Some("AES256 without bucket key".to_owned()),
        Some(_) => return None,
    };
    let blocked = rule.and_then(|rule| rule.blocked_encryption_types().cloned());
    change("encryption", before, "AES256 with bucket key", Write::Encryption(blocked))
}

fn tls_only(wanted: &Wanted, seen: &Seen) -> Answer<Option<BucketChange>> {
    let merged = policy::merge(seen.policy.as_deref(), &wanted.arn()).map_err(|reason| {
        let message = format!("the policy of bucket {} cannot be read: {reason}", wanted.bucket);
        ProviderError::refused("s3 GetBucketPolicy", message).help(
            "clawd puts a statement into it and will not write over what it cannot read: mend the policy",
        )
    })?;
    let Some(merged) = merged else {
        return Ok(None);
    };
    let before = merged.replaces.then(|| format!("{} says something else", policy::SID));
    let beside = match merged.others {
        0 => String::new(),
        1 => ", beside the statement that is there".to_owned(),
        others => format!(", beside the {others} statements that are there"),
    };
    let after = format!("{}: calls without TLS are refused{beside}", policy::SID);
    Ok(change("policy", before, after, Write::Policy(merged.document)))
}

fn public_access(seen: &Seen) -> Option<BucketChange> {
    let blocked = seen.public_access.as_ref().map_or(0, |it| {
        let ways =
            [it.block_public_acls, it.ignore_public_acls, it.block_public_policy, it.restrict_public_buckets];
        ways.into_iter().filter(|way| *way == Some(true)).count()
    });
    if blocked == 4 {
        return None;
    }
    let before = (blocked > 0).then(|| format!("blocked in {blocked} of 4 ways"));
    change("public access", before, "blocked in all 4 ways", Write::PublicAccess)
}

/// A rule in the form of today. One of the first form says its prefix itself; S3 takes no document with rules of both.
#[allow(deprecated)] // the first form is what is read here
fn modern(mut rule: LifecycleRule) -> LifecycleRule {
    let prefix = rule.prefix.take();
    rule.filter
        .get_or_insert_with(|| LifecycleRuleFilter::builder().prefix(prefix.unwrap_or_default()).build());
    rule
}

/// Whether a rule ends unfinished uploads, wherever they are in the bucket, soon enough.
fn ends_uploads(rule: &LifecycleRule) -> bool {
    let everywhere = rule.filter().is_some_and(|filter| {
        filter.prefix().is_none_or(str::is_empty)
            && filter.tag().is_none()
            && filter.and().is_none()
            && filter.object_size_greater_than().is_none()
            && filter.object_size_less_than().is_none()
    });
    let abort = rule.abort_incomplete_multipart_upload();
    let days = abort.and_then(AbortIncompleteMultipartUpload::days_after_initiation);
    everywhere && *rule.status() == ExpirationStatus::Enabled && days.is_some_and(|days| days <= DAYS)
}

fn lifecycle(seen: &Seen) -> Option<BucketChange> {
    let Lifecycle { rules, least_size } = &seen.lifecycle;
    let rules: Vec<_> = rules.iter().cloned().map(modern).collect();
    if rules.iter().any(ends_uploads) {
        return None;
    }
    let (ours, others): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| rule.id() == Some(RULE));
    let before = (!ours.is_empty()).then(|| format!("{RULE} says something else"));
    let rule = LifecycleRule::builder()
        .id(RULE)
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .abort_incomplete_multipart_upload(
            AbortIncompleteMultipartUpload::builder().days_after_initiation(DAYS).build(),
        )
        .build()
        .expect("a rule with a status is whole");
    let rules = others.into_iter().chain([rule]).collect();
    let after = format!("{RULE}: after {DAYS} days");
    change("lifecycle", before, after, Write::Lifecycle(Lifecycle { rules, least_size: least_size.clone() }))
}

fn tag<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == key).map(Tag::value)
}

/// Tags that are missing. A bucket that a step made holds something else than states; one that another fleet made is shared.
fn tags(wanted: &Wanted, seen: &Seen) -> Answer<Option<BucketChange>> {
    if let Some(step) = tag(&seen.tags, TAG_STEP).filter(|step| *step != STEP) {
        let message = format!("the bucket {} was made by {step}, for something else", wanted.bucket);
        return Err(ProviderError::refused("s3 GetBucketTagging", message).help(format!(
            "name another bucket with `state_bucket` in the profile; if this one is to hold states, remove its tag `{TAG_STEP}`"
        )));
    }
    let ours = [(TAG_FLEET, wanted.fleet.as_str()), (TAG_STEP, STEP)];
    let missing: Vec<_> = ours.into_iter().filter(|(key, _)| tag(&seen.tags, key).is_none()).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let after: Vec<String> = missing.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let added = missing.into_iter().map(|(key, value)| {
        Tag::builder().key(key).value(value).build().expect("a tag with key and value is whole")
    });
    let all = seen.tags.iter().cloned().chain(added).collect();
    Ok(change("tags", None, after.join(", "), Write::Tags(all)))
}

fn notes(wanted: &Wanted, seen: &Seen) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(fleet) = tag(&seen.tags, TAG_FLEET).filter(|fleet| *fleet != wanted.fleet) {
        notes.push(format!("the fleet {fleet} made it; states of each fleet lie under the fleet's name"));
    }
    if let Some(kept) = algorithm(seen).filter(|it| **it != ServerSideEncryption::Aes256) {
        notes.push(format!("encryption with {} stays", kept.as_str()));
    }
    let removes = |rule: &&LifecycleRule| {
        let expires = rule.expiration().is_some_and(|it| it.days().is_some() || it.date().is_some());
        *rule.status() == ExpirationStatus::Enabled
            && (expires || rule.noncurrent_version_expiration().is_some())
    };
    for rule in seen.lifecycle.rules.iter().filter(removes) {
        let name = rule.id().unwrap_or("without a name");
        notes.push(format!(
            "the lifecycle rule {name} removes objects or their versions, and so may lose states"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::PublicAccessBlockConfiguration;

    use super::*;

    fn wanted() -> Wanted {
        Wanted { bucket: "states".into(), fleet: "demo".into(), region: "eu-central-1".into() }
    }

    /// The bucket after everything that is planned was written.
    fn complete(seen: &Seen) -> Seen {
        let mut seen = seen.clone();
        for change in decide(&wanted(), Some(&seen)).unwrap().changes {
            match change.write {
                Write::Ownership => seen.ownership = Some(ObjectOwnership::BucketOwnerEnforced),
                Write::Versioning => seen.versioning = Some(BucketVersioningStatus::Enabled),
                Write::Encryption(blocked) => seen.encryption = Some(Write::encryption(blocked)),
                Write::Policy(document) => seen.policy = Some(document),
                Write::PublicAccess => seen.public_access = Some(Write::no_public_access()),
                Write::Lifecycle(lifecycle) => seen.lifecycle = lifecycle,
                Write::Tags(tags) => seen.tags = tags,
            }
        }
        seen
    }

    fn settings(seen: Option<&Seen>) -> Vec<&'static str> {
        decide(&wanted(), seen).unwrap().changes.iter().map(|change| change.setting).collect()
    }

    #[test]
    fn a_bucket_that_is_not_there_lacks_everything_and_a_complete_one_nothing() {
        let all = ["ownership", "versioning", "encryption", "policy", "public access", "lifecycle", "tags"];
        assert_eq!(settings(None), all);
        assert!(settings(Some(&complete(&Seen::default()))).is_empty());
    }

    #[test]
    fn what_would_lose_or_open_states_is_put_right() {
        let good = complete(&Seen::default());
        let half = PublicAccessBlockConfiguration::builder().block_public_acls(true).build();
        let suspended = Some(BucketVersioningStatus::Suspended);
        for (setting, seen) in [
            ("ownership", Seen { ownership: Some(ObjectOwnership::ObjectWriter), ..good.clone() }),
            ("versioning", Seen { versioning: suspended, ..good.clone() }),
            ("public access", Seen { public_access: Some(half), ..good.clone() }),
        ] {
            let plan = decide(&wanted(), Some(&seen)).unwrap();
            assert_eq!(plan.changes.len(), 1, "{setting}");
            assert_eq!(plan.changes[0].setting, setting);
            assert!(plan.changes[0].before.is_some(), "{setting}: what it was is told");
        }
    }

    #[test]
    fn stronger_encryption_and_other_tags_stay() {
        let kms = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::AwsKms);
        let rule = ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(kms.build().unwrap())
            .build();
        let cost = Tag::builder().key("cost").value("42").build().unwrap();
        let other = Tag::builder().key(TAG_FLEET).value("others").build().unwrap();
        let seen =
            complete(&Seen { encryption: Some(rule.clone()), tags: vec![cost, other], ..Seen::default() });
        assert_eq!(seen.encryption, Some(rule));
        let pairs: Vec<_> = seen.tags.iter().map(|tag| (tag.key(), tag.value())).collect();
        assert_eq!(pairs, [("cost", "42"), (TAG_FLEET, "others"), (TAG_STEP, STEP)]);
        assert_eq!(decide(&wanted(), Some(&seen)).unwrap().notes.len(), 2);
    }

    #[test]
    #[allow(deprecated)] // a rule of the first form, which S3 still hands out
    fn rules_of_the_first_form_are_carried_over_in_the_form_of_today() {
        let old = LifecycleRule::builder().id("logs").prefix("logs/").status(ExpirationStatus::Enabled);
        let rules = vec![old.build().unwrap()];
        let seen = complete(&Seen { lifecycle: Lifecycle { rules, least_size: None }, ..Seen::default() });
        let told: Vec<_> = seen
            .lifecycle
            .rules
            .iter()
            .map(|it| (it.prefix(), it.filter().map(|filter| filter.prefix())))
            .collect();
        assert_eq!(told, [(None, Some(Some("logs/"))), (None, Some(Some("")))]);
    }

    #[test]
    fn a_bucket_that_a_step_made_is_refused() {
        let made = Tag::builder().key(TAG_STEP).value("tofu_apply.base").build().unwrap();
        let error = decide(&wanted(), Some(&Seen { tags: vec![made], ..Seen::default() })).unwrap_err();
        assert!(error.message.contains("tofu_apply.base"), "{error}");
    }
}
