//! What moto cannot do: throttling, errors, answers lost after the effect, connections that hang, checksums that are wrong,
//! resources that do not show yet, credentials of somebody else.

use super::{Call, Fault, Proxy, RealProject};
use crate::support::block;

const RUN: [&str; 5] = ["run", "plans/image.rhai", "--profile", "moto", "--yes"];
const PLAN: [&str; 4] = ["plan", "plans/image.rhai", "--profile", "moto"];

/// The calls of one whole run, in the order of their first appearance.
const CALLS: [&str; 9] = [
    "sts GetCallerIdentity",
    "ec2 DescribeImages",
    "ec2 DescribeSnapshots",
    "ec2 DescribeVolumes",
    "ec2 GetEbsEncryptionByDefault",
    "ebs StartSnapshot",
    "ebs PutSnapshotBlock",
    "ebs CompleteSnapshot",
    "ec2 RegisterImage",
];

/// Runs the plan through a proxy that breaks the first call of one operation; ends with one AMI and one snapshot.
fn comes_through(operation: &'static str, fault: &Fault) {
    let real = RealProject::new();
    let fault = fault.clone();
    let proxy =
        Proxy::with(move |call: &Call| (call.is(operation) && call.number == 0).then(|| fault.clone()));
    let output = real.run(Some(&proxy), &RUN);
    assert!(output.status.success(), "{operation}: {}", block(&RUN, &output));
    assert!(proxy.count(operation) > 1, "{operation} was called again");
    assert_eq!(real.made(), (1, 1), "{operation}");
}

#[test]
fn a_call_that_is_throttled_is_made_again() {
    for operation in CALLS {
        let (status, code) = match operation.split_once(' ').unwrap().0 {
            "ebs" => (400, "RequestThrottledException"),
            "sts" => (400, "Throttling"),
            _ => (503, "RequestLimitExceeded"),
        };
        comes_through(operation, &Fault::Refuse(status, code, "slow down"));
    }
}

#[test]
fn a_call_that_fails_on_their_side_is_made_again() {
    for operation in CALLS {
        comes_through(operation, &Fault::Refuse(500, "InternalError", "their fault"));
    }
}

#[test]
fn a_call_whose_connection_breaks_is_made_again() {
    for operation in CALLS {
        comes_through(operation, &Fault::CutBefore);
    }
}

#[test]
fn a_call_whose_answer_is_lost_after_its_effect_doubles_nothing() {
    for operation in ["ebs StartSnapshot", "ebs PutSnapshotBlock", "ebs CompleteSnapshot"] {
        comes_through(operation, &Fault::CutAfter);
    }
    // RegisterImage takes no token: its lost answer is found by looking, not by calling again.
    let real = RealProject::new();
    let proxy =
        Proxy::with(|call| (call.is("ec2 RegisterImage") && call.number == 0).then_some(Fault::CutAfter));
    real.expect(0, Some(&proxy), &RUN);
    assert_eq!((proxy.count("ec2 RegisterImage"), real.made()), (1, (1, 1)));
}

#[test]
fn a_server_that_says_nothing_is_given_up_and_asked_again() {
    let real = RealProject::new();
    let clawd = real.project.read("clawd.toml") + "answer_timeout = \"1s\"\n";
    real.project.write("clawd.toml", &clawd);
    for operation in ["ec2 DescribeImages", "ebs PutSnapshotBlock"] {
        let proxy =
            Proxy::with(move |call: &Call| (call.is(operation) && call.number == 0).then_some(Fault::Hang));
        real.expect(0, Some(&proxy), &RUN);
    }
    assert_eq!(real.made(), (1, 1));
}

#[test]
fn a_snapshot_that_does_not_show_yet_is_waited_for() {
    let real = RealProject::new();
    let none = "<DescribeSnapshotsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId><snapshotSet/></DescribeSnapshotsResponse>";
    let proxy = Proxy::with(move |call| {
        (call.is("ec2 DescribeSnapshots") && call.form.contains("SnapshotId.1") && call.number < 8)
            .then_some(Fault::Instead(none))
    });
    real.expect(0, Some(&proxy), &RUN);
    assert_eq!((proxy.count("ebs StartSnapshot"), real.made()), (1, (1, 1)));
}

#[test]
fn a_checksum_that_does_not_match_ends_the_upload() {
    let real = RealProject::new();
    let proxy = Proxy::with(|call| {
        call.is("ebs PutSnapshotBlock").then_some(Fault::Refuse(
            400,
            "ValidationException",
            "the checksum does not match the block",
        ))
    });
    insta::assert_snapshot!("fault-checksum", real.block(Some(&proxy), &RUN));
    assert_eq!(real.made().0, 0);
}

#[test]
fn a_journal_that_says_too_much_costs_a_second_upload_and_no_data() {
    let real = RealProject::new();
    // The journal hears of all blocks; the last call is refused, and what EBS has is lost.
    let first = Proxy::with(|call| {
        call.is("ebs CompleteSnapshot").then_some(Fault::Refuse(403, "AccessDeniedException", "not yet"))
    });
    real.expect(1, Some(&first), &RUN);
    let lost = Proxy::with(|call| {
        (call.is("ebs CompleteSnapshot") && call.number == 0).then_some(Fault::Refuse(
            400,
            "ValidationException",
            "the checksum does not match",
        ))
    });
    real.expect(0, Some(&lost), &RUN);
    assert_eq!(lost.count("ebs PutSnapshotBlock"), 8, "everything once more");
    assert_eq!(real.made(), (1, 1));
}

#[test]
fn what_is_denied_is_final_and_names_what_is_missing() {
    for (name, operation, code, message) in [
        (
            "describe",
            "ec2 DescribeImages",
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
        ),
        (
            "register",
            "ec2 RegisterImage",
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
        ),
        (
            "start",
            "ebs StartSnapshot",
            "AccessDeniedException",
            "User is not authorized to perform: ebs:StartSnapshot",
        ),
        ("kms", "ebs StartSnapshot", "AccessDeniedException", "The caller has no access to the KMS key"),
        ("quota", "ebs StartSnapshot", "ValidationException", "The volume size is beyond the quota"),
    ] {
        let real = RealProject::new();
        let proxy =
            Proxy::with(move |call: &Call| call.is(operation).then_some(Fault::Refuse(403, code, message)));
        insta::assert_snapshot!(format!("denied-{name}"), real.block(Some(&proxy), &RUN));
        // The step looks for its AMI, the plan for what the fleet has: once each.
        let asked = if name == "describe" { 2 } else { 1 };
        assert_eq!(proxy.count(operation), asked, "{name}: what is denied is not asked for again");
    }
}

#[test]
fn a_pending_quota_is_waited_for() {
    comes_through(
        "ebs StartSnapshot",
        &Fault::Refuse(402, "ServiceQuotaExceededException", "too many pending snapshots"),
    );
}

#[test]
fn expired_credentials_are_asked_for_anew() {
    for operation in ["ebs PutSnapshotBlock", "ec2 RegisterImage"] {
        comes_through(
            operation,
            &Fault::Refuse(403, "ExpiredTokenException", "The security token has expired"),
        );
    }
}

#[test]
fn credentials_of_another_account_are_refused_before_anything_else() {
    let real = RealProject::new();
    let clawd = real.project.read("clawd.toml").replace("123456789012", "210987654321");
    real.project.write("clawd.toml", &clawd);
    let proxy = Proxy::plain();
    insta::assert_snapshot!("fault-account", real.block(Some(&proxy), &PLAN));
    assert!(proxy.calls().iter().all(|call| call.is("sts GetCallerIdentity")), "{:?}", proxy.calls());
}

#[test]
fn profiles_of_real_accounts_are_checked() {
    let real = RealProject::new();
    let good = real.project.read("clawd.toml");
    for (name, from, to) in [
        ("no-account", "account = \"123456789012\"\n", ""),
        ("bad-region", "eu-central-1", "Frankfurt"),
        ("no-lock", "lock = \"file\"\n", ""),
        ("other-lock", "lock = \"file\"", "lock = \"s3://b/lock\""),
        ("simulated", "lock = \"file\"", "lock = \"file\"\ntime_scale = 1.0"),
        ("test-credentials-abroad", "http://127.0.0.1", "https://ec2.example.org"),
        ("fast-server", "lock = \"file\"", "lock = \"file\"\nanswer_timeout = \"0s\""),
    ] {
        real.project.write("clawd.toml", &good.replace(from, to));
        insta::assert_snapshot!(format!("profile-{name}"), real.block(None, &PLAN));
    }
}

#[test]
fn nobody_listens() {
    let real = RealProject::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    real.plan("let found = find_ami(\"x\", #{ id: \"ami-0123456789abcdef0\" });");
    let mut command = real.command(None, &PLAN);
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"));
    insta::assert_snapshot!("fault-nobody", real.stable(&block(&PLAN, &command.output().unwrap())));
}
