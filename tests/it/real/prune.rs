//! `prune_amis` and `find_ami` against moto: what stays, what goes, and what it costs of the budget.

use super::{Fault, Proxy, RealProject, moto};

const RUN: [&str; 5] = ["run", "plans/prune.rhai", "--profile", "moto", "--yes"];
const PLAN: [&str; 4] = ["plan", "plans/prune.rhai", "--profile", "moto"];

const PRUNE: &str = "let pruned = prune_amis(\"old\", #{ keep: 1 });\noutput(\"removed\", pruned.removed);\n";
const ALLOW: &str = "allow(#{ destroy: [\"prune_amis.old/*\"], max_destroy: 5 });\n";

/// Imports the image anew so many times; returns the ids, oldest first.
fn import(real: &RealProject, times: usize) -> Vec<String> {
    (0..times)
        .map(|number| {
            real.change_image(&format!("{number}"));
            let output = real.expect(0, None, &["run", "plans/image.rhai", "--profile", "moto", "--yes"]);
            output.split("ami = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned()
        })
        .collect()
}

#[test]
fn old_amis_go_with_their_snapshots_and_used_ones_stay() {
    let real = RealProject::new();
    let amis = import(&real, 5);
    // A host runs the third: it stays, and the second as what it ran before. The first goes, and the fourth.
    moto::ec2(&format!(
        "Action=RunInstances&Version=2016-11-15&ImageId={}&MinCount=1&MaxCount=1&TagSpecification.1.ResourceType=instance\
         &TagSpecification.1.Tag.1.Key=clawd%3Ahost&TagSpecification.1.Tag.1.Value=CLAWDINATOR-1",
        amis[2]
    ));
    real.project.write("plans/prune.rhai", PRUNE);
    let refused = real.block(None, &RUN);
    assert!(refused.contains("plan.over-budget") && refused.contains("--- exit 3"), "{refused}");
    assert_eq!(real.made(), (5, 5));
    real.project.write("plans/prune.rhai", &(PRUNE.to_owned() + ALLOW));
    let planned = real.expect(0, None, &PLAN);
    for (number, goes) in [(0, true), (1, false), (2, false), (3, true), (4, false)] {
        assert_eq!(planned.contains(&format!("- {}", amis[number])), goes, "AMI {number}: {planned}");
        let stays = planned.contains(&format!("ami {}, ", amis[number]));
        assert_eq!(stays, !goes, "what goes is not listed as staying, AMI {number}: {planned}");
    }
    // Killed in between: the snapshot of a deregistered AMI is not forgotten.
    let proxy = Proxy::with(|call| {
        (call.is("ec2 DeleteSnapshot") && call.number == 0).then_some(Fault::Refuse(
            403,
            "UnauthorizedOperation",
            "no",
        ))
    });
    real.expect(1, Some(&proxy), &RUN);
    real.expect(0, None, &RUN);
    assert_eq!(real.made(), (3, 3));
    assert!(real.expect(0, None, &PLAN).contains("No changes."));
    real.project.write(
        "plans/find.rhai",
        &format!(
            "let found = find_ami(\"it\", #{{ id: \"{}\" }});\noutput(\"hash\", found.content_hash);",
            amis[4]
        ),
    );
    let found = real.expect(0, None, &["plan", "plans/find.rhai", "--profile", "moto"]);
    assert!(found.contains("No changes.") && found.contains("hash = \""), "{found}");
    real.project.write("plans/find.rhai", &format!("find_ami(\"it\", #{{ id: \"{}\" }});", amis[0]));
    insta::assert_snapshot!("find-gone", real.block(None, &["plan", "plans/find.rhai", "--profile", "moto"]));
}
