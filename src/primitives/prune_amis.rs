//! `prune_amis`: deregisters the fleet's AMIs that nobody needs, and deletes their snapshots.
//!
//! Rules: of each step that imports AMIs the newest stay, kept apart so that a busy one cannot push out another's; so
//! does what is pinned, what an instance or launch template uses, the one before it for every host, and what is on its
//! way. What no import made is not touched. Each AMI that goes counts against the budget as `step/ami-...`, and each is
//! looked at again right before it goes.
//!
//! A snapshot is marked with its AMI before the AMI goes: a try that dies in between leaves a mark that leads the next
//! one to it, as what is left of that same AMI.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::import_ami::ImportAmi;
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use crate::plan::{Action, Change, Decision, Effect, Nested};
use crate::providers::ports::{Ec2Read, Image, ImageUse, Snapshot, TAG_FLEET, TAG_PRUNED, TAG_STEP, Tags};
use crate::providers::{ErrorKind, ProviderError};
use crate::value::{Value, from_typed};

/// Removes old AMIs.
pub(super) struct PruneAmis;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// How many available AMIs stay of each step that imports them: the newest.
    #[schemars(range(min = 1, max = 1000))]
    keep: u64,
    /// AMIs that stay whatever their age, `ami-...`; those that `fleet.toml` pins are given by `pins` of `std/fleet`.
    #[serde(default)]
    pinned: Vec<String>,
}

/// What is left of the fleet's AMIs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Pruned", extend("x-clawd-step" = "prune_amis"))]
pub(super) struct Pruned {
    // A map and not a list: an AMI that is imported between plan and apply adds a key, and so makes no plan stale.
    /// The AMIs that stay: id to name.
    pub(super) kept: BTreeMap<String, String>,
    /// The AMIs that were deregistered, sorted.
    pub(super) removed: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The fleet's AMIs, whatever made them.
    images: Vec<Image>,
    /// What launches from them.
    uses: Vec<ImageUse>,
    /// Marked snapshots whose AMI is gone: an earlier try did not come to them.
    leftovers: Vec<Snapshot>,
}

/// Looks at the fleet's AMIs.
async fn look(ec2: &dyn Ec2Read, fleet: &str) -> Result<Seen, ProviderError> {
    let mut images = ec2.images(&[(TAG_FLEET, fleet)]).await?;
    images.retain(|image| image.state != "deregistered");
    images.sort_by(|a, b| a.id.cmp(&b.id));
    let mut uses = ec2.image_uses().await?;
    uses.retain(|it| images.iter().any(|image| image.id == it.image_id));
    uses.sort_by(|a, b| (&a.image_id, &a.by).cmp(&(&b.image_id, &b.by)));
    let mut leftovers = ec2.snapshots(&[(TAG_FLEET, fleet)]).await?;
    leftovers.retain(|it| {
        it.tags.contains_key(TAG_PRUNED) && !images.iter().any(|image| image.snapshot_id == it.id)
    });
    leftovers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Seen { images, uses, leftovers })
}

/// The import that made an AMI; nothing when no import did.
fn lineage(image: &Image) -> Option<&str> {
    let step = image.tags.get(TAG_STEP)?;
    step.split_once('.').filter(|(primitive, _)| *primitive == ImportAmi::NAME).map(|_| step.as_str())
}

/// Older sorts before newer. Two of one second are told apart by their ids, so that the answer is always the same.
fn age(image: &Image) -> (i64, &str) {
    (image.created, image.id.as_str())
}

/// What stays and what goes, of the AMIs that imports made.
#[derive(Debug)]
struct Selection<'a> {
    /// With the reason, unless it is one of the newest.
    kept: Vec<(&'a Image, Option<String>)>,
    /// Oldest first.
    gone: Vec<&'a Image>,
}

fn select<'a>(keep: usize, pinned: &[String], images: &'a [Image], uses: &[ImageUse]) -> Selection<'a> {
    let mut lineages: BTreeMap<&str, Vec<&Image>> = BTreeMap::new();
    for image in images {
        if let Some(step) = lineage(image) {
            lineages.entry(step).or_default().push(image);
        }
    }
    let mut selection = Selection { kept: Vec::new(), gone: Vec::new() };
    for family in lineages.values_mut() {
        family.sort_by(|a, b| age(b).cmp(&age(a)));
        let available: Vec<&Image> =
            family.iter().copied().filter(|image| image.state == "available").collect();
        let previous = previous(&available, family, uses);
        for image in family.iter().copied() {
            let id = image.id.as_str();
            if available.iter().take(keep).any(|newest| newest.id == id) {
                selection.kept.push((image, None));
            } else if let Some(why) = reason(image, pinned, uses, previous.get(id)) {
                selection.kept.push((image, Some(why)));
            } else {
                selection.gone.push(image);
            }
        }
    }
    selection.kept.sort_by(|(a, _), (b, _)| age(a).cmp(&age(b)));
    selection.gone.sort_by(|a, b| age(a).cmp(&age(b)));
    selection
}

/// The AMI before the one that a host runs, with the hosts that would go back to it.
fn previous<'a, 'u>(
    available: &[&'a Image],
    family: &[&'a Image],
    uses: &'u [ImageUse],
) -> BTreeMap<&'a str, BTreeSet<&'u str>> {
    let mut found: BTreeMap<&'a str, BTreeSet<&'u str>> = BTreeMap::new();
    for it in uses {
        let Some(host) = it.host.as_deref() else { continue };
        let Some(runs) = family.iter().copied().find(|image| image.id == it.image_id) else { continue };
        // Newest first, so the first older one is the one before.
        if let Some(before) = available.iter().copied().find(|image| age(image) < age(runs)) {
            found.entry(before.id.as_str()).or_default().insert(host);
        }
    }
    found
}

/// Why an AMI stays that is none of the newest.
fn reason(
    image: &Image,
    pinned: &[String],
    uses: &[ImageUse],
    hosts: Option<&BTreeSet<&str>>,
) -> Option<String> {
    let users: Vec<String> = uses
        .iter()
        .filter(|it| it.image_id == image.id)
        .map(|it| {
            let kind = if it.by.starts_with("lt-") { "launch template" } else { "instance" };
            format!("{kind} {}", it.by)
        })
        .collect();
    if let [user] = users.as_slice() {
        return Some(format!("{user} uses it"));
    }
    if !users.is_empty() {
        return Some(format!("{} use it", users.join(", ")));
    }
    if pinned.contains(&image.id) {
        return Some("it is pinned".to_owned());
    }
    if let Some(hosts) = hosts {
        let hosts: Vec<&str> = hosts.iter().copied().collect();
        return Some(format!("{} would go back to it", hosts.join(", ")));
    }
    matches!(image.state.as_str(), "pending" | "transient").then(|| format!("it is {}", image.state))
}

impl Args {
    fn select<'a>(&self, seen: &'a Seen) -> Selection<'a> {
        let keep = usize::try_from(self.keep).unwrap_or(usize::MAX);
        select(keep, &self.pinned, &seen.images, &seen.uses)
    }
}

impl Selection<'_> {
    fn outputs(&self, mut removed: Vec<String>) -> Pruned {
        removed.sort();
        let kept = self.kept.iter().map(|(image, _)| (image.id.clone(), image.name.clone())).collect();
        Pruned { kept, removed }
    }

    fn goes(&self, id: &str) -> bool {
        self.gone.iter().any(|image| image.id == id)
    }
}

/// An AMI's snapshot, unless there is none or an AMI that stays is made of it too.
fn own_snapshot<'a>(image: &'a Image, images: &[Image], goes: impl Fn(&str) -> bool) -> Option<&'a str> {
    let id = image.snapshot_id.as_str();
    let shared = images.iter().any(|it| it.snapshot_id == id && it.id != image.id && !goes(&it.id));
    (!id.is_empty() && !shared).then_some(id)
}

/// The AMI whose snapshot was left over.
fn marked_for(snapshot: &Snapshot) -> Option<&str> {
    snapshot.tags.get(TAG_PRUNED).map(String::as_str).filter(|id| is_ami(id))
}

fn is_ami(id: &str) -> bool {
    id.strip_prefix("ami-")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn refuse(args: &Partial<'_, Args>) -> Option<Refusal> {
    let Some(Value::List(pinned)) = args.get("pinned") else { return None };
    let wrong = pinned.iter().filter_map(Value::as_str).find(|pin| !is_ami(pin))?;
    Some(Refusal::new(
        format!("`pinned` holds \"{}\", which is no AMI's id", wrong.escape_debug()),
        "pin by id, `ami-...`; the AMI that an import yields is its `image_id`",
    ))
}

fn taken(path: &str, before: Value) -> Change {
    Change { path: path.into(), before, after: Value::Null, effect: Effect::Destroy }
}

/// The nested changes: AMIs with their snapshots, and what is left of AMIs that went before. The latter stand under
/// their AMI's address too: whoever approved that it goes has approved this.
fn nested(selection: &Selection<'_>, seen: &Seen) -> Vec<Nested> {
    let destroy = |address: &str, changes: Vec<Change>| Nested {
        reason: None,
        address: address.to_owned(),
        action: Action::Destroy,
        changes,
    };
    let of_image = |image: &&Image| {
        let created = jiff::Timestamp::from_second(image.created)
            .map_or(Value::Int(image.created), |at| Value::from(at.to_string()));
        let mut changes = vec![taken("name", image.name.as_str().into()), taken("created", created)];
        if let Some(snapshot) = own_snapshot(image, &seen.images, |id| selection.goes(id)) {
            changes.push(taken("snapshot", snapshot.into()));
        }
        destroy(&image.id, changes)
    };
    let of_leftover = |snapshot: &Snapshot| {
        let address = marked_for(snapshot).unwrap_or(&snapshot.id);
        destroy(address, vec![taken("snapshot", snapshot.id.as_str().into())])
    };
    selection.gone.iter().map(of_image).chain(seen.leftovers.iter().map(of_leftover)).collect()
}

/// The one line of the plan that says how much goes.
fn summary(gone: usize, all: usize, leftovers: usize) -> String {
    let left = match leftovers {
        1 => "1 snapshot is left over from an earlier try".to_owned(),
        count => format!("{count} snapshots are left over from an earlier try"),
    };
    match (gone, leftovers) {
        (0, 0) => match all {
            0 => "there are no AMIs".to_owned(),
            1 => "1 AMI, kept".to_owned(),
            _ => format!("{all} AMIs, all kept"),
        },
        (0, _) => left,
        (_, _) => {
            let verb = if gone == 1 { "is" } else { "are" };
            let amis = if all == 1 { "AMI" } else { "AMIs" };
            let line = format!("{gone} of {all} {amis} {verb} not needed");
            if leftovers == 0 { line } else { format!("{line}, {left}") }
        }
    }
}

impl Primitive for PruneAmis {
    const NAME: &'static str = "prune_amis";
    const SUMMARY: &'static str = "Deregisters old AMIs with their snapshots; what is new, pinned or used stays, and what each host ran before.";
    const EXAMPLE: &'static str = r##"// Before the import: what it adds must not push out what was not shown.
let pruned = prune_amis("old", #{ keep: 3 });
let image = build_image("base", #{ flake: ".#clawdinator-image" });
let ami = import_ami("base", #{ image: image, name_prefix: "clawdinator", after: [pruned] });
output("prune_amis", pruned.removed);"##;
    const IAM: &'static [&'static str] = &[
        "ec2:CreateTags",
        "ec2:DeleteSnapshot",
        "ec2:DeregisterImage",
        "ec2:DescribeImages",
        "ec2:DescribeInstances",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeSnapshots",
    ];
    const PORT: Port = Port::Ec2;
    type Args = Args;
    type Outputs = Pruned;
    type Seen = Seen;

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        if args.has_unknown() {
            return Ok(Seen::default());
        }
        look(cx.ec2(), &cx.scope().target.fleet).await
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, _: Scope<'_>) -> Result<Decision, Refusal> {
        if let Some(refusal) = refuse(args) {
            return Err(refusal);
        }
        let Ok(known) = args.known() else {
            return Ok(Decision::unknown(format!("{} is not known yet", args.unknown_leaves().join(", "))));
        };
        let selection = known.select(seen);
        let all = selection.kept.len() + selection.gone.len();
        let reason = summary(selection.gone.len(), all, seen.leftovers.len());
        let nested = nested(&selection, seen);
        let mut decision = if nested.is_empty() {
            let outputs = selection.outputs(Vec::new());
            Decision::no_op(reason, from_typed(&outputs).unwrap_or_default())
        } else {
            // Not known: what comes into use before this is applied stays, and that is no reason to stop.
            let planned = Value::map([("kept", Value::Unknown), ("removed", Value::Unknown)]);
            Decision::new(Action::Destroy, reason, planned)
        };
        decision.nested = nested;
        for (image, why) in &selection.kept {
            if let Some(why) = why {
                decision = decision.note(format!("{} is kept: {why}", image.id));
            }
        }
        Ok(decision)
    }

    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<Pruned, ProviderError> {
        let fleet = cx.target().fleet.as_str();
        let due: Vec<String> = args.select(&seen).gone.iter().map(|image| image.id.clone()).collect();
        let mut removed: Vec<String> = Vec::new();
        for id in due {
            // Looked at anew before each: what is used by now stays.
            let mut now = look(cx.ec2(), fleet).await?;
            // What went a moment ago may still show, and must not pass for another holder of a snapshot.
            now.images.retain(|image| !removed.contains(&image.id));
            let selection = args.select(&now);
            if let Some(image) = selection.gone.iter().copied().find(|image| image.id == id) {
                remove(image, &now.images, cx).await?;
                removed.push(id);
            } else if let Some((_, why)) = selection.kept.iter().find(|(image, _)| image.id == id) {
                let why = why.as_deref().unwrap_or("it is one of the newest");
                cx.progress(&format!("{id} is kept: {why}"));
            }
        }
        for snapshot in &seen.leftovers {
            let image = marked_for(snapshot);
            delete_snapshot(&snapshot.id, image, cx).await?;
            removed.extend(image.map(str::to_owned));
        }
        let now = look(cx.ec2(), fleet).await?;
        Ok(args.select(&now).outputs(removed))
    }
}

/// Deregisters an AMI and deletes its snapshot, marked first.
async fn remove(image: &Image, images: &[Image], cx: &ApplyContext<'_>) -> Result<(), ProviderError> {
    // Another AMI that goes too still needs the snapshot until its own turn.
    let snapshot = match own_snapshot(image, images, |_| false) {
        Some(id) => cx.ec2().snapshot(id).await?,
        None => None,
    };
    if let Some(snapshot) = &snapshot {
        let tags = Tags::from([
            (TAG_FLEET.to_owned(), cx.target().fleet.clone()),
            (TAG_PRUNED.to_owned(), image.id.clone()),
        ]);
        cx.effect("CreateTags", &(&snapshot.id, &tags), |_| cx.ec2().tag(&snapshot.id, &tags)).await?;
    }
    cx.progress(&format!("deregistering {}, {}", image.id, image.name));
    cx.effect("DeregisterImage", &image.id, |_| cx.ec2().deregister_image(&image.id)).await?;
    match &snapshot {
        Some(snapshot) => delete_snapshot(&snapshot.id, Some(&image.id), cx).await,
        None => Ok(()),
    }
}

/// Deletes the snapshot of an AMI that is gone, unless another AMI is made of it by now.
async fn delete_snapshot(
    snapshot: &str,
    image: Option<&str>,
    cx: &ApplyContext<'_>,
) -> Result<(), ProviderError> {
    let images = cx.ec2().images(&[(TAG_FLEET, cx.target().fleet.as_str())]).await?;
    // What was deregistered a moment ago may still show.
    let holder = images
        .iter()
        .find(|it| it.snapshot_id == snapshot && Some(it.id.as_str()) != image && it.state != "deregistered");
    if let Some(holder) = holder {
        cx.progress(&format!("{snapshot} is kept: {} is made of it", holder.id));
        return Ok(());
    }
    cx.effect("DeleteSnapshot", &snapshot, |_| cx.ec2().delete_snapshot(snapshot)).await.map_err(in_use)
}

/// A snapshot may count as used for a moment after its AMI is gone: another try finds it by its mark.
fn in_use(error: ProviderError) -> ProviderError {
    if error.kind != ErrorKind::Permanent || !error.message.contains("InvalidSnapshot.InUse") {
        return error;
    }
    ProviderError { kind: ErrorKind::Transient, ..error }
        .help("an AMI outside the fleet may be made of this snapshot; deregister that one, or remove the snapshot's tag clawd:pruned")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Target;
    use crate::plan::budget::costs;
    use crate::plan::conform::differences;
    use crate::units::GiB;
    use crate::value::{Address, to_typed};

    const BASE: &str = "import_ami.base";

    fn image(number: i64, step: &str) -> Image {
        Image {
            id: format!("ami-{number}"),
            name: format!("name-{number}"),
            state: "available".to_owned(),
            state_reason: None,
            snapshot_id: format!("snap-{number}"),
            architecture: "x86_64".to_owned(),
            boot_mode: "uefi".to_owned(),
            root_device: "/dev/xvda".to_owned(),
            tags: Tags::from([(TAG_STEP.to_owned(), step.to_owned())]),
            created: number,
            deprecated: None,
        }
    }

    /// AMIs of one import, `ami-1` the oldest.
    fn base(count: i64) -> Vec<Image> {
        (1..=count).map(|number| image(number, BASE)).collect()
    }

    fn used(number: i64, by: &str, host: Option<&str>) -> ImageUse {
        ImageUse { image_id: format!("ami-{number}"), by: by.to_owned(), host: host.map(str::to_owned) }
    }

    fn leftover(number: i64) -> Snapshot {
        Snapshot {
            id: format!("snap-{number}"),
            state: "completed".to_owned(),
            state_reason: None,
            size: GiB(8),
            volume_id: None,
            kms_key: None,
            tags: Tags::from([(TAG_PRUNED.to_owned(), format!("ami-{number}"))]),
            created: number,
        }
    }

    fn gone(keep: usize, pinned: &[&str], images: &[Image], uses: &[ImageUse]) -> Vec<String> {
        let pinned: Vec<String> = pinned.iter().map(|pin| (*pin).to_owned()).collect();
        select(keep, &pinned, images, uses).gone.iter().map(|image| image.id.clone()).collect()
    }

    fn decide(args: &[(&str, Value)], seen: &Seen) -> Result<Decision, Refusal> {
        let target =
            Target { profile: "p".into(), fleet: "demo".into(), account: "1".into(), region: "r".into() };
        let step = address();
        let args = Value::map(args.iter().cloned());
        PruneAmis.decide(&Partial::new(&args), seen, Scope { target: &target, step: &step })
    }

    fn address() -> Address {
        "prune_amis.old".parse().unwrap()
    }

    fn keeping(keep: i64, seen: &Seen) -> Decision {
        decide(&[("keep", keep.into())], seen).unwrap()
    }

    fn seen(images: Vec<Image>) -> Seen {
        Seen { images, ..Seen::default() }
    }

    #[test]
    fn the_newest_stay_whatever_the_order_they_are_listed_in() {
        let mut images = base(4);
        images.rotate_left(2);
        assert_eq!(gone(2, &[], &images, &[]), ["ami-1", "ami-2"]);
        assert!(gone(4, &[], &images, &[]).is_empty());
        // Of one second: by id.
        for image in &mut images {
            image.created = 7;
        }
        assert_eq!(gone(3, &[], &images, &[]), ["ami-1"]);
    }

    #[test]
    fn a_busy_import_does_not_push_out_another_ones() {
        let mut images = vec![image(1, "import_ami.rare")];
        images.extend((2..=6).map(|number| image(number, BASE)));
        assert_eq!(gone(2, &[], &images, &[]), ["ami-2", "ami-3", "ami-4"]);
    }

    #[test]
    fn each_rule_keeps_its_own() {
        let images = base(6);
        assert_eq!(gone(1, &[], &images, &[]).len(), 5);
        assert_eq!(gone(1, &["ami-2"], &images, &[]), ["ami-1", "ami-3", "ami-4", "ami-5"]);
        // An instance of no host, and a launch template.
        let uses = [used(3, "i-1", None), used(5, "lt-1", None)];
        assert_eq!(gone(1, &[], &images, &uses), ["ami-1", "ami-2", "ami-4"]);
        // Two hosts: what they run, and for each the one before.
        let uses = [used(6, "i-1", Some("a")), used(3, "i-2", Some("b"))];
        assert_eq!(gone(1, &[], &images, &uses), ["ami-1", "ami-4"]);
    }

    #[test]
    fn the_one_before_is_of_the_same_import_and_can_be_launched() {
        let mut images = base(4);
        images[2].state = "failed".to_owned();
        images.push(Image { created: 3, ..image(9, "import_ami.other") });
        images.push(image(10, "import_ami.other"));
        let uses = [used(4, "i-1", Some("a"))];
        assert_eq!(gone(1, &[], &images, &uses), ["ami-1", "ami-3", "ami-9"]);
    }

    #[test]
    fn what_is_on_its_way_stays_and_counts_for_nothing() {
        let mut images = base(4);
        images[3].state = "pending".to_owned();
        images[1].state = "failed".to_owned();
        assert_eq!(gone(1, &[], &images, &[]), ["ami-1", "ami-2"]);
    }

    #[test]
    fn what_no_import_made_is_not_touched() {
        let mut images = base(3);
        images[0].tags.clear();
        images[1].tags.insert(TAG_STEP.to_owned(), "by_hand.base".to_owned());
        let selection = select(1, &[], &images, &[]);
        assert!(selection.gone.is_empty());
        assert_eq!(selection.kept.len(), 1);
    }

    #[test]
    fn each_ami_that_goes_costs_budget_and_each_that_stays_says_why() {
        let uses = vec![used(2, "i-1", Some("a")), used(2, "lt-1", None)];
        let decision = keeping(1, &Seen { images: base(4), uses, leftovers: vec![] });
        assert_eq!(
            (decision.action, decision.reason.as_str()),
            (Action::Destroy, "1 of 4 AMIs is not needed")
        );
        assert_eq!(
            decision.notes,
            [
                "ami-1 is kept: a would go back to it",
                "ami-2 is kept: instance i-1, launch template lt-1 use it"
            ]
        );
        let subjects: Vec<String> =
            costs(&address(), &decision).into_iter().map(|cost| cost.subject).collect();
        assert_eq!(subjects, ["prune_amis.old/ami-3"]);
        let paths: Vec<&str> = decision.nested[0].changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["name", "created", "snapshot"]);
        assert_eq!(decision.nested[0].changes[1].before, Value::from("1970-01-01T00:00:03Z"));
    }

    #[test]
    fn a_snapshot_stays_while_an_ami_that_stays_is_made_of_it() {
        let mut images = base(3);
        for image in &mut images {
            image.snapshot_id = "snap-0".to_owned();
        }
        let of = |decision: &Decision| decision.nested.iter().map(|it| it.changes.len()).collect::<Vec<_>>();
        assert_eq!(of(&keeping(1, &seen(images.clone()))), [2, 2]);
        images[2].snapshot_id = "snap-3".to_owned();
        assert_eq!(of(&keeping(1, &seen(images))), [3, 3]);
    }

    #[test]
    fn less_at_apply_is_fine_and_more_is_stale() {
        let shown = keeping(1, &seen(base(3)));
        // Another try, after the first AMI went and its snapshot did not.
        let again = Seen { images: base(3).split_off(1), uses: vec![], leftovers: vec![leftover(1)] };
        let now = keeping(1, &again);
        assert_eq!(now.reason, "1 of 2 AMIs is not needed, 1 snapshot is left over from an earlier try");
        assert!(differences(&shown, &now).is_empty());
        // One came into use.
        let fewer = Seen { images: base(3), uses: vec![used(1, "i-1", None)], leftovers: vec![] };
        assert!(differences(&shown, &keeping(1, &fewer)).is_empty());
        assert!(differences(&shown, &keeping(1, &seen(vec![image(3, BASE)]))).is_empty());
        let found = differences(&shown, &keeping(1, &seen(base(4))));
        assert_eq!(found.iter().map(|it| it.subject.as_str()).collect::<Vec<_>>(), ["ami-3"]);
    }

    #[test]
    fn a_left_over_snapshot_alone_is_reason_enough() {
        let decision = keeping(3, &Seen { images: base(2), uses: vec![], leftovers: vec![leftover(9)] });
        assert_eq!(decision.action, Action::Destroy);
        assert_eq!(decision.reason, "1 snapshot is left over from an earlier try");
        assert_eq!(decision.nested[0].address, "ami-9");
        let mut unreadable = leftover(9);
        unreadable.tags.insert(TAG_PRUNED.to_owned(), "yes".to_owned());
        let decision = keeping(3, &Seen { images: base(2), uses: vec![], leftovers: vec![unreadable] });
        assert_eq!(decision.nested[0].address, "snap-9");
    }

    #[test]
    fn nothing_to_do_says_what_there_is_and_bears_a_new_ami() {
        let shown = keeping(3, &seen(base(2)));
        assert_eq!((shown.action, shown.reason.as_str()), (Action::NoOp, "2 AMIs, all kept"));
        let outputs: Pruned = to_typed(&shown.planned).unwrap();
        assert_eq!(
            outputs.kept.into_iter().collect::<Vec<_>>(),
            [("ami-1".to_owned(), "name-1".to_owned()), ("ami-2".to_owned(), "name-2".to_owned())]
        );
        assert!(outputs.removed.is_empty());
        assert!(differences(&shown, &keeping(3, &seen(base(3)))).is_empty());
        assert_eq!(keeping(3, &Seen::default()).reason, "there are no AMIs");
    }

    #[test]
    fn pins_are_ids_and_must_be_known() {
        let with = |pins: Vec<Value>| {
            decide(&[("keep", Value::Int(1)), ("pinned", Value::List(pins))], &Seen::default())
        };
        let decision = with(vec!["ami-1".into(), Value::Unknown]).unwrap();
        assert_eq!(
            (decision.action, decision.reason.as_str()),
            (Action::Unknown, "pinned[1] is not known yet")
        );
        for wrong in ["base", "ami-", "ami-1 "] {
            let refusal = with(vec![Value::Unknown, wrong.into()]).unwrap_err();
            assert!(refusal.message.contains("no AMI's id"), "{wrong}: {}", refusal.message);
        }
    }
}
