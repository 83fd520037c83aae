//! `clawd bootstrap` against moto: what it makes, what it completes, what it leaves alone, and what it refuses.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{Call, Fault, Moto, Proxy, moto};
use crate::support::{Project, block};

const RUN: [&str; 4] = ["bootstrap", "--profile", "moto", "--yes"];
const DRY: [&str; 5] = ["bootstrap", "--profile", "moto", "--dry-run", "--detailed-exitcode"];
const ASK: [&str; 3] = ["bootstrap", "--profile", "moto"];

const STRANGER: &str = "210987654321";

/// A project whose profile names a bucket of its own, so that tests share one moto.
struct Account {
    project: Project,
    bucket: String,
}

impl Account {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let bucket = format!("states-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let project = Project::new();
        project.write(
            "clawd.toml",
            &format!(
                "fleet = \"demo\"\n\n[profiles.moto]\nadapters = \"aws\"\naccount = \"123456789012\"\n\
                 region = \"eu-central-1\"\nendpoint = \"http://127.0.0.1:{}\"\ncredentials = \"test\"\nlock = \"file\"\n\
                 state_bucket = \"{bucket}\"\n",
                Moto::port()
            ),
        );
        Self { project, bucket }
    }

    /// The same with something else in `clawd.toml`.
    fn with(from: &str, to: &str) -> Self {
        let account = Self::new();
        let clawd = account.project.read("clawd.toml");
        assert!(clawd.contains(from), "{clawd}");
        account.project.write("clawd.toml", &clawd.replace(from, to));
        account
    }

    fn run(&self, proxy: &Proxy, args: &[&str]) -> Output {
        let mut command = self.project.command(args);
        command.env("HOME", self.project.path()).env("AWS_ENDPOINT_URL", proxy.url());
        command.output().unwrap()
    }

    /// A whole command as one block, without what differs from run to run.
    fn block(&self, proxy: &Proxy, args: &[&str]) -> String {
        block(args, &self.run(proxy, args)).replace(&self.bucket, "[bucket]")
    }

    /// Runs a command that must end with this exit code.
    #[track_caller]
    fn expect(&self, exit: i32, proxy: &Proxy, args: &[&str]) {
        let output = self.run(proxy, args);
        assert_eq!(output.status.code(), Some(exit), "{}", block(args, &output));
    }

    fn setting(&self, word: &str) -> String {
        moto::setting(&self.bucket, word)
    }

    fn set(&self, word: &str, body: &str) {
        moto::set(&self.bucket, word, body);
    }

    fn statements(&self) -> Vec<Value> {
        let policy: Value = serde_json::from_str(&self.setting("policy")).unwrap();
        policy["Statement"].as_array().unwrap().clone()
    }

    /// The statement that refuses calls without TLS.
    fn tls_only(&self) -> Value {
        let arn = format!("arn:aws:s3:::{}", self.bucket);
        json!({
            "Sid": "ClawdTlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
            "Resource": [arn, format!("{arn}/*")],
            "Condition": { "Bool": { "aws:SecureTransport": "false" } },
        })
    }
}

/// What was changed through a proxy, in alphabetical order.
fn mutations(proxy: &Proxy) -> Vec<String> {
    let mut found: Vec<String> =
        proxy.calls().into_iter().filter(Call::mutates).map(|call| call.operation).collect();
    found.sort();
    found
}

#[test]
fn the_first_run_makes_the_bucket_and_the_second_changes_nothing() {
    let account = Account::new();
    let first = Proxy::plain();
    insta::assert_snapshot!("bootstrap-new", account.block(&first, &RUN));
    // Ownership comes with the creation; each other setting is written once.
    let all = [
        "s3 CreateBucket",
        "s3 PutBucketEncryption",
        "s3 PutBucketLifecycleConfiguration",
        "s3 PutBucketPolicy",
        "s3 PutBucketTagging",
        "s3 PutBucketVersioning",
        "s3 PutPublicAccessBlock",
    ];
    assert_eq!(mutations(&first), all);
    assert!(account.setting("ownershipControls").contains("BucketOwnerEnforced"));
    assert!(account.setting("versioning").contains("<Status>Enabled</Status>"));
    assert_eq!(account.setting("publicAccessBlock").matches(">true<").count(), 4);
    let encryption = account.setting("encryption");
    assert!(encryption.contains("<SSEAlgorithm>AES256</SSEAlgorithm>"), "{encryption}");
    assert!(encryption.contains("<BucketKeyEnabled>true</BucketKeyEnabled>"), "{encryption}");
    assert_eq!(account.statements(), [account.tls_only()]);
    let lifecycle = account.setting("lifecycle");
    assert!(lifecycle.contains("<DaysAfterInitiation>7</DaysAfterInitiation>"), "{lifecycle}");
    assert!(!lifecycle.contains("Expiration>"), "older states are the history: {lifecycle}");
    let tags = account.setting("tagging");
    assert!(tags.contains("<Key>clawd:fleet</Key><Value>demo</Value>"), "{tags}");
    assert!(tags.contains("<Key>clawd:step</Key><Value>bootstrap</Value>"), "{tags}");

    let second = Proxy::plain();
    insta::assert_snapshot!("bootstrap-again", account.block(&second, &RUN));
    account.expect(0, &second, &DRY);
    assert_eq!(mutations(&second), [""; 0]);
}

#[test]
fn a_bucket_that_is_half_made_is_completed_and_what_others_set_stays() {
    let account = Account::new();
    moto::make_bucket(&account.bucket);
    account
        .set("versioning", "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>");
    account.set(
        "publicAccessBlock",
        "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
    );
    account.set(
        "encryption",
        "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm>\
         </ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
    );
    let audit = json!({
        "Sid": "Audit", "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::210987654321:root" },
        "Action": "s3:GetBucketPolicy", "Resource": format!("arn:aws:s3:::{}", account.bucket),
    });
    let stale =
        json!({ "Sid": "ClawdTlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:GetObject" });
    account.set("policy", &json!({ "Version": "2012-10-17", "Statement": [audit, stale] }).to_string());
    account.set(
        "lifecycle",
        "<LifecycleConfiguration><Rule><ID>old</ID><Filter><Prefix>logs/</Prefix></Filter><Status>Enabled</Status>\
         <NoncurrentVersionExpiration><NoncurrentDays>30</NoncurrentDays></NoncurrentVersionExpiration></Rule>\
         </LifecycleConfiguration>",
    );
    account.set(
        "tagging",
        "<Tagging><TagSet><Tag><Key>cost</Key><Value>42</Value></Tag><Tag><Key>clawd:fleet</Key><Value>others</Value></Tag>\
         </TagSet></Tagging>",
    );

    insta::assert_snapshot!("bootstrap-half", account.block(&Proxy::plain(), &RUN));
    assert!(account.setting("ownershipControls").contains("BucketOwnerEnforced"));
    assert!(account.setting("versioning").contains("<Status>Enabled</Status>"));
    assert_eq!(account.setting("publicAccessBlock").matches(">true<").count(), 4);
    assert!(account.setting("encryption").contains("aws:kms"), "what is stronger stays");
    assert_eq!(account.statements(), [audit, account.tls_only()]);
    let lifecycle = account.setting("lifecycle");
    assert!(lifecycle.contains("<ID>old</ID>") && lifecycle.contains("<NoncurrentDays>30</NoncurrentDays>"));
    assert!(lifecycle.contains("<DaysAfterInitiation>7</DaysAfterInitiation>"), "{lifecycle}");
    let tags = account.setting("tagging");
    for (key, value) in [("cost", "42"), ("clawd:fleet", "others"), ("clawd:step", "bootstrap")] {
        assert!(tags.contains(&format!("<Key>{key}</Key><Value>{value}</Value>")), "{key}: {tags}");
    }

    let again = Proxy::plain();
    account.expect(0, &again, &RUN);
    assert_eq!(mutations(&again), [""; 0]);
}

#[test]
fn a_dry_run_and_a_run_that_nobody_approves_change_nothing() {
    let account = Account::new();
    let proxy = Proxy::plain();
    insta::assert_snapshot!("bootstrap-dry", account.block(&proxy, &DRY));
    insta::assert_snapshot!("bootstrap-not-approved", account.block(&proxy, &ASK));
    assert_eq!(mutations(&proxy), [""; 0]);
}

#[test]
fn another_account_and_another_region_are_refused() {
    let wrong = Account::with("account = \"123456789012\"", "account = \"210987654321\"");
    let proxy = Proxy::plain();
    insta::assert_snapshot!("bootstrap-account", wrong.block(&proxy, &RUN));
    assert!(proxy.calls().iter().all(|call| call.is("sts GetCallerIdentity")), "{:?}", proxy.calls());

    let far = Account::with("eu-central-1", "eu-west-1");
    moto::make_bucket(&far.bucket);
    let proxy = Proxy::plain();
    insta::assert_snapshot!("bootstrap-elsewhere", far.block(&proxy, &RUN));
    assert_eq!(mutations(&proxy), [""; 0]);
}

#[test]
fn a_bucket_of_a_stranger_is_refused() {
    let account = Account::new();
    moto::make_bucket_of(STRANGER, &account.bucket);
    let proxy = Proxy::plain();
    insta::assert_snapshot!("bootstrap-stranger", account.block(&proxy, &RUN));
    assert_eq!(mutations(&proxy), [""; 0]);

    // Made by a stranger between the look and the call.
    let account = Account::new();
    let bucket = account.bucket.clone();
    let taken: Arc<dyn Fn() + Send + Sync> = Arc::new(move || moto::make_bucket_of(STRANGER, &bucket));
    let proxy = Proxy::with(move |call| {
        (call.is("s3 CreateBucket") && call.number == 0).then(|| Fault::Before(Arc::clone(&taken)))
    });
    insta::assert_snapshot!("bootstrap-taken", account.block(&proxy, &RUN));
    assert!(mutations(&proxy).iter().all(|operation| operation == "s3 CreateBucket"));
}

#[test]
fn a_creation_whose_answer_is_lost_and_a_change_that_meets_another_are_made_again() {
    let account = Account::new();
    let proxy = Proxy::with(|call| match call.operation.as_str() {
        "s3 CreateBucket" if call.number == 0 => Some(Fault::CutAfter),
        "s3 PutBucketPolicy" if call.number == 0 => {
            Some(Fault::Refuse(409, "OperationAborted", "A conflicting operation is in progress"))
        }
        _ => None,
    });
    account.expect(0, &proxy, &RUN);
    assert_eq!((proxy.count("s3 CreateBucket"), proxy.count("s3 PutBucketPolicy")), (2, 2));
    assert_eq!(account.statements(), [account.tls_only()]);
}

#[test]
fn a_setting_that_shows_late_is_waited_for() {
    let account = Account::new();
    let none = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>";
    let proxy = Proxy::with(move |call| {
        (call.is("s3 GetBucketVersioning") && call.number < 2).then_some(Fault::Instead(none))
    });
    account.expect(0, &proxy, &RUN);
    assert_eq!((proxy.count("s3 GetBucketVersioning"), proxy.count("s3 PutBucketVersioning")), (3, 1));
}

#[test]
fn what_was_not_shown_is_not_done() {
    let account = Account::new();
    account.expect(0, &Proxy::plain(), &RUN);
    account.set("tagging", "<Tagging><TagSet><Tag><Key>cost</Key><Value>42</Value></Tag></TagSet></Tagging>");
    let bucket = account.bucket.clone();
    let suspend: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        let suspended = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
        moto::set(&bucket, "versioning", suspended);
    });
    // The first look is shown, the second is the one before acting.
    let proxy = Proxy::with(move |call| {
        (call.is("s3 HeadBucket") && call.number == 1).then(|| Fault::Before(Arc::clone(&suspend)))
    });
    insta::assert_snapshot!("bootstrap-moved", account.block(&proxy, &RUN));
    assert_eq!(mutations(&proxy), [""; 0]);
}

#[test]
fn what_is_denied_names_the_line_that_is_missing() {
    let account = Account::new();
    moto::make_bucket(&account.bucket);
    let denied = |operation: &'static str| {
        Proxy::with(move |call: &Call| {
            call.is(operation).then_some(Fault::Refuse(403, "AccessDenied", "Access Denied"))
        })
    };
    let read = denied("s3 GetBucketEncryption");
    insta::assert_snapshot!("bootstrap-denied-read", account.block(&read, &RUN));
    assert_eq!(mutations(&read), [""; 0]);
    insta::assert_snapshot!(
        "bootstrap-denied-write",
        account.block(&denied("s3 PutPublicAccessBlock"), &RUN)
    );
    account.expect(0, &Proxy::plain(), &RUN);
}

#[test]
fn the_bucket_has_a_name_by_default_and_a_name_that_s3_refuses_is_refused() {
    let account = Account::new();
    let clawd = account.project.read("clawd.toml");
    let named = format!("state_bucket = \"{}\"\n", account.bucket);
    account.project.write("clawd.toml", &clawd.replace(&named, ""));
    let shown = account.block(&Proxy::plain(), &DRY);
    assert!(shown.contains("clawd-state-123456789012-eu-central-1"), "{shown}");
    account.project.write("clawd.toml", &clawd.replace(&account.bucket, "My_Bucket"));
    insta::assert_snapshot!("bootstrap-bad-name", account.block(&Proxy::plain(), &DRY));
}

#[test]
fn a_profile_without_an_account_needs_no_bucket() {
    let project = Project::new();
    insta::assert_snapshot!("bootstrap-sim", project.block(&["bootstrap"]));
    insta::assert_snapshot!("bootstrap-local", project.block(&["bootstrap", "--profile", "local"]));
    project.write("clawd.toml", "[profiles.sim]\nadapters = \"sim\"\nstate_bucket = \"states\"\n");
    insta::assert_snapshot!("bootstrap-sim-bucket", project.block(&["bootstrap"]));
}
