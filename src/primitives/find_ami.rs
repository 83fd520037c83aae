//! `find_ami`: an AMI that is there already, found by what it was made from or by its id. A read: it changes nothing.
//!
//! What is not there, or is there more than once, is refused: which AMI a plan means must not be a guess. Only an AMI
//! that can be launched from is found; one on its way is named in the refusal.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use crate::plan::Decision;
use crate::providers::ProviderError;
use crate::providers::ports::{Image, TAG_CONTENT, TAG_FLEET, TAG_REVISION};
use crate::value::{Value, from_typed};

/// Digits of a content hash in messages.
const SHORT: usize = 12;

/// What an AMI is looked for by: exactly one of these arguments.
const MARKS: [&str; 3] = ["content_hash", "id", "revision"];

/// Finds an AMI.
pub(super) struct FindAmi;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// Hash of its content, the whole of it: an output of import_ami. Looks among the fleet's own AMIs.
    content_hash: Option<String>,
    /// Flake revision it was built from. Looks among the fleet's own AMIs.
    revision: Option<String>,
    /// Its id, `ami-...`, whoever owns it.
    #[schemars(regex(pattern = r"^ami-[0-9a-z]+$"))]
    id: Option<String>,
    /// Only AMIs whose name begins with this.
    name_prefix: Option<String>,
}

/// An AMI that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "FoundAmi", extend("x-clawd-step" = "find_ami"))]
pub(super) struct FoundAmi {
    /// `ami-...`
    pub(super) image_id: String,
    /// The snapshot of its root device, `snap-...`
    pub(super) snapshot_id: String,
    /// Its name.
    pub(super) name: String,
    /// Hash of its content, hex; nothing when it was not made by import_ami.
    pub(super) content_hash: Option<String>,
    /// Flake revision it was built from; nothing when it was not made by import_ami, or from a tree without one.
    pub(super) revision: Option<String>,
    /// CPU architecture.
    pub(super) architecture: String,
    /// Firmware.
    pub(super) boot_mode: String,
    /// Root device name.
    pub(super) root_device: String,
    /// Region it is in.
    pub(super) region: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// What was found, in any state; nothing while it is not known what to look for.
    images: Option<Vec<Image>>,
}

/// What an AMI is looked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark<'a> {
    Content(&'a str),
    Revision(&'a str),
    Id(&'a str),
}

impl fmt::Display for Mark<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(hash) => write!(f, "carries content hash {}", hash.get(..SHORT).unwrap_or(hash)),
            Self::Revision(revision) => write!(f, "was built from revision {revision}"),
            Self::Id(id) => write!(f, "has the id {id}"),
        }
    }
}

impl Args {
    fn mark(&self) -> Option<Mark<'_>> {
        match (&self.content_hash, &self.revision, &self.id) {
            (Some(hash), None, None) => Some(Mark::Content(hash)),
            (None, Some(revision), None) => Some(Mark::Revision(revision)),
            (None, None, Some(id)) => Some(Mark::Id(id)),
            _ => None,
        }
    }
}

/// What the arguments must not ask for together, known or not.
fn refuse(args: &Partial<'_, Args>) -> Option<Refusal> {
    let is_given = |path: &str| !matches!(args.get(path), None | Some(Value::Null));
    let given: Vec<&str> = MARKS.into_iter().filter(|path| is_given(path)).collect();
    let message = match given.as_slice() {
        [_] => return None,
        [] => "it is not said what to look for".to_owned(),
        several => format!("an AMI is looked for by one thing, not by {}", several.join(" and ")),
    };
    Some(Refusal::new(message, format!("give exactly one of {}", MARKS.join(", "))))
}

/// The one AMI that is meant, of those that carry the mark.
fn pick<'a>(
    mark: Mark<'_>,
    name_prefix: Option<&str>,
    fleet: &str,
    images: &'a [Image],
) -> Result<&'a Image, Refusal> {
    let named = images.iter().filter(|image| name_prefix.is_none_or(|prefix| image.name.starts_with(prefix)));
    let (available, others): (Vec<&Image>, Vec<&Image>) = named.partition(|image| image.state == "available");
    match available.as_slice() {
        [image] => Ok(*image),
        [] => Err(none(mark, name_prefix, fleet, &others)),
        several => {
            let ids: Vec<&str> = several.iter().map(|image| image.id.as_str()).collect();
            Err(Refusal::new(
                format!("{} AMIs match, each {mark}: {}", ids.len(), ids.join(", ")),
                "narrow it down with `name_prefix`, or name the one that is meant by `id`",
            ))
        }
    }
}

fn none(mark: Mark<'_>, name_prefix: Option<&str>, fleet: &str, others: &[&Image]) -> Refusal {
    let whose = match mark {
        Mark::Id(_) => String::new(),
        Mark::Content(_) | Mark::Revision(_) => format!(" of the fleet {fleet}"),
    };
    let named =
        name_prefix.map_or_else(String::new, |prefix| format!(" with a name that begins with `{prefix}`"));
    if others.is_empty() {
        return Refusal::new(
            format!("no AMI{whose}{named} {mark}"),
            "import it first, or look for one that is there; the profile says in which account and region",
        );
    }
    let states: Vec<String> = others
        .iter()
        .map(|image| match &image.state_reason {
            Some(reason) => format!("{} is {}: {reason}", image.id, image.state),
            None => format!("{} is {}", image.id, image.state),
        })
        .collect();
    Refusal::new(
        format!("no available AMI{whose}{named} {mark}: {}", states.join(", ")),
        "run again once it is available; one that failed is imported again by its own plan",
    )
}

impl FoundAmi {
    fn of(image: &Image, region: &str) -> Self {
        Self {
            image_id: image.id.clone(),
            snapshot_id: image.snapshot_id.clone(),
            name: image.name.clone(),
            content_hash: image.tags.get(TAG_CONTENT).cloned(),
            revision: image.tags.get(TAG_REVISION).cloned(),
            architecture: image.architecture.clone(),
            boot_mode: image.boot_mode.clone(),
            root_device: image.root_device.clone(),
            region: region.to_owned(),
        }
    }
}

impl Primitive for FindAmi {
    const NAME: &'static str = "find_ami";
    const SUMMARY: &'static str =
        "Finds an available AMI by its content hash, by the flake revision it was built from, or by id.";
    const EXAMPLE: &'static str = r##"let image = build_image("base", #{ flake: ".#clawdinator-image" });
let ami = import_ami("base", #{ image: image, name_prefix: "clawdinator" });
let found = find_ami("base", #{ id: ami.image_id });
output("ami", found.image_id);"##;
    const IAM: &'static [&'static str] = &["ec2:DescribeImages"];
    const PORT: Port = Port::Ec2;
    type Args = Args;
    type Outputs = FoundAmi;
    type Seen = Seen;

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        let Ok(known) = args.known() else { return Ok(Seen { images: None }) };
        let fleet = cx.scope().target.fleet.as_str();
        let mut images: Vec<Image> = match known.mark() {
            None => return Ok(Seen { images: None }),
            Some(Mark::Id(id)) => cx.ec2().image(id).await?.into_iter().collect(),
            Some(Mark::Content(hash)) => cx.ec2().images(&[(TAG_FLEET, fleet), (TAG_CONTENT, hash)]).await?,
            Some(Mark::Revision(revision)) => {
                cx.ec2().images(&[(TAG_FLEET, fleet), (TAG_REVISION, revision)]).await?
            }
        };
        images.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Seen { images: Some(images) })
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, scope: Scope<'_>) -> Result<Decision, Refusal> {
        if let Some(refusal) = refuse(args) {
            return Err(refusal);
        }
        let unknown = || Decision::unknown(format!("{} is not known yet", args.unknown_leaves().join(", ")));
        let (Ok(known), Some(images)) = (args.known(), &seen.images) else { return Ok(unknown()) };
        let Some(mark) = known.mark() else { return Ok(unknown()) };
        let image = pick(mark, known.name_prefix.as_deref(), &scope.target.fleet, images)?;
        let reason = match mark {
            Mark::Id(id) => format!("{id} is available"),
            Mark::Content(_) | Mark::Revision(_) => format!("{} {mark}", image.id),
        };
        let found = FoundAmi::of(image, &scope.target.region);
        Ok(Decision::no_op(reason, from_typed(&found).unwrap_or_default()))
    }

    /// Never called: what is found is a no-op. Should it be, it yields what was seen.
    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<FoundAmi, ProviderError> {
        let target = cx.target();
        let (Some(mark), Some(images)) = (args.mark(), &seen.images) else {
            return Err(ProviderError::permanent(Self::NAME, "it was not known what to look for"));
        };
        match pick(mark, args.name_prefix.as_deref(), &target.fleet, images) {
            Ok(image) => Ok(FoundAmi::of(image, &target.region)),
            Err(refusal) => Err(ProviderError::refused(Self::NAME, refusal.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Action, Target};
    use crate::providers::ports::Tags;
    use crate::value::{Address, to_typed};

    const HASH: &str = "3f2a9c0d1e4b5a6978877665544332211000ffeeddccbbaa99887766554433aa";

    fn image(id: &str, name: &str, state: &str) -> Image {
        Image {
            id: id.to_owned(),
            name: name.to_owned(),
            state: state.to_owned(),
            state_reason: None,
            snapshot_id: id.replace("ami", "snap"),
            architecture: "x86_64".to_owned(),
            boot_mode: "uefi".to_owned(),
            root_device: "/dev/xvda".to_owned(),
            tags: Tags::from([(TAG_CONTENT.to_owned(), HASH.to_owned())]),
            created: 0,
            deprecated: None,
        }
    }

    fn decide(args: &[(&str, Value)], images: Option<Vec<Image>>) -> Result<Decision, Refusal> {
        let target =
            Target { profile: "p".into(), fleet: "demo".into(), account: "1".into(), region: "r".into() };
        let step: Address = "find_ami.x".parse().unwrap();
        let args = Value::map(args.iter().cloned());
        FindAmi.decide(&Partial::new(&args), &Seen { images }, Scope { target: &target, step: &step })
    }

    fn by_hash(images: Vec<Image>) -> Result<Decision, Refusal> {
        decide(&[("content_hash", HASH.into())], Some(images))
    }

    #[test]
    fn the_one_that_is_available_is_found() {
        let decision =
            by_hash(vec![image("ami-1", "a", "available"), image("ami-2", "b", "failed")]).unwrap();
        assert_eq!(
            (decision.action, decision.reason.as_str()),
            (Action::NoOp, "ami-1 carries content hash 3f2a9c0d1e4b")
        );
        let found: FoundAmi = to_typed(&decision.planned).unwrap();
        assert_eq!((found.image_id.as_str(), found.snapshot_id.as_str()), ("ami-1", "snap-1"));
        assert_eq!((found.content_hash.as_deref(), found.revision), (Some(HASH), None));
        assert_eq!(found.region, "r");
    }

    #[test]
    fn by_id_it_may_be_anyones() {
        let mut foreign = image("ami-7", "public", "available");
        foreign.tags.clear();
        let decision = decide(&[("id", "ami-7".into())], Some(vec![foreign])).unwrap();
        assert_eq!((decision.action, decision.reason.as_str()), (Action::NoOp, "ami-7 is available"));
        let found: FoundAmi = to_typed(&decision.planned).unwrap();
        assert_eq!((found.content_hash, found.revision), (None, None));
    }

    #[test]
    fn none_is_refused_by_name() {
        assert_eq!(
            by_hash(vec![]).unwrap_err().message,
            "no AMI of the fleet demo carries content hash 3f2a9c0d1e4b"
        );
        let by_revision = decide(&[("revision", "abc".into()), ("name_prefix", "x".into())], Some(vec![]));
        assert_eq!(
            by_revision.unwrap_err().message,
            "no AMI of the fleet demo with a name that begins with `x` was built from revision abc"
        );
        let by_id = decide(&[("id", "ami-9".into())], Some(vec![]));
        assert_eq!(by_id.unwrap_err().message, "no AMI has the id ami-9");
    }

    #[test]
    fn one_in_another_state_is_named_with_it() {
        let mut failed = image("ami-2", "b", "failed");
        failed.state_reason = Some("no space".to_owned());
        let message = by_hash(vec![image("ami-1", "a", "pending"), failed]).unwrap_err().message;
        assert_eq!(
            message,
            "no available AMI of the fleet demo carries content hash 3f2a9c0d1e4b: ami-1 is pending, ami-2 is failed: no space"
        );
    }

    #[test]
    fn two_are_refused_unless_the_name_tells_them_apart() {
        let images = vec![image("ami-1", "one-1", "available"), image("ami-2", "two-1", "available")];
        let refusal = by_hash(images.clone()).unwrap_err();
        assert_eq!(refusal.message, "2 AMIs match, each carries content hash 3f2a9c0d1e4b: ami-1, ami-2");
        assert!(refusal.help.is_some_and(|help| help.contains("name_prefix")));
        let narrowed =
            decide(&[("content_hash", HASH.into()), ("name_prefix", "two".into())], Some(images)).unwrap();
        assert_eq!(
            narrowed.planned.as_map().and_then(|map| map.get("image_id")),
            Some(&Value::from("ami-2"))
        );
    }

    #[test]
    fn exactly_one_thing_is_looked_for() {
        assert_eq!(decide(&[], None).unwrap_err().message, "it is not said what to look for");
        let both = [("id", Value::Unknown), ("revision", "abc".into())];
        assert_eq!(
            decide(&both, None).unwrap_err().message,
            "an AMI is looked for by one thing, not by id and revision"
        );
    }

    #[test]
    fn what_is_not_known_yet_is_decided_later() {
        let decision = decide(&[("id", Value::Unknown)], None).unwrap();
        assert_eq!((decision.action, decision.reason.as_str()), (Action::Unknown, "id is not known yet"));
    }
}
