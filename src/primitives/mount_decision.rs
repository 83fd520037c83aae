//! What `mount_volume` does with what it found. Pure: the rules that refuse, what differs, and what is told of data that is lost.

use serde::{Deserialize, Serialize};

use super::context::Scope;
use super::mount_volume::{Args, FileSystem, default_mode, default_owner};
use super::partial::Partial;
use super::primitive::Refusal;
use super::volume::{BLANK, FORMATTED, SUPERSEDED, is_gone, may_format, state, unknown_among};
use crate::plan::{Action, Change, Decision, Effect};
use crate::providers::ports::{
    Instance, MountReport, NEVER_A_MOUNT, Snapshot, TAG_FLEET, TAG_HOST, TAG_STATE, TAG_STEP, Volume,
};
use crate::value::Value;

/// What is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) volume: Option<Volume>,
    /// The volume whose place one from the snapshot takes.
    pub(super) old: Option<Volume>,
    /// The wanted snapshot.
    pub(super) snapshot: Option<Snapshot>,
    /// The wanted instance, when it is known.
    pub(super) instance: Option<Instance>,
    /// The instance that one of the volumes is attached to now, when it is another one.
    pub(super) holder: Option<Instance>,
    pub(super) mounted: Option<MountReport>,
}

impl Seen {
    /// What is to be done.
    pub(super) fn decide(&self, args: &Partial<'_, Args>, scope: Scope<'_>) -> Result<Decision, Refusal> {
        if let Some(key) = unknown_among(args, &["host", "path", "efs", "access_point", "adopt", "snapshot"])
        {
            return Ok(Decision::unknown(format!("{key} is not known yet")));
        }
        self.refusals(args)?;
        if let Some(efs) = args.str("efs") {
            return self.decide_efs(args, efs);
        }
        let zone = match (&self.volume, args.str("zone"), &self.instance) {
            (Some(volume), _, _) => volume.zone.as_str().into(),
            (None, Some(zone), _) => zone.into(),
            (None, None, Some(instance)) => instance.zone.as_str().into(),
            (None, None, None) => Value::Unknown,
        };
        let of_volume = |id: &str| self.mounted.as_ref().filter(|mounted| mounted.source == id);
        let mounted = self.volume.as_ref().and_then(|volume| of_volume(&volume.id));
        let uuid = mounted.map_or(Value::Unknown, |mounted| mounted.uuid.as_str().into());
        let volume_id = self.volume.as_ref().map_or(Value::Unknown, |volume| volume.id.as_str().into());
        let planned = Value::map([
            ("volume_id", volume_id),
            ("host", args.planned("host")),
            ("instance", args.planned("instance")),
            ("path", args.planned("path")),
            ("zone", zone.clone()),
            ("size_gib", args.planned("size_gib")),
            ("uuid", uuid),
        ]);
        let fs = args.str("fs").unwrap_or(FileSystem::default().as_str());
        let Some(volume) = &self.volume else {
            return Ok(self.decide_new(args, planned, zone, fs));
        };
        let mut changes = self.changes(args, volume, fs, scope);
        if let Some(old) = &self.old {
            changes.push(supersedes(old, &volume.id));
        }
        if changes.is_empty() {
            return Ok(Decision::no_op(format!("{} is mounted", volume.id), planned));
        }
        // A volume that an interrupted create of this very step left blank is still being created: its format
        // was approved with the create.
        if may_format(volume) && args.get("adopt").is_none() && mounted.is_none() {
            let reason = format!("{} was created and is not mounted yet", volume.id);
            return Ok(Decision::new(Action::Create, reason, planned).changes(changes));
        }
        let what: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        let reason = format!("{} differs in {}", volume.id, what.join(", "));
        Ok(Decision::new(Action::Update, reason, planned).changes(changes))
    }

    /// What stands against the arguments, given what is there.
    fn refusals(&self, args: &Partial<'_, Args>) -> Result<(), Refusal> {
        contradictions(args)?;
        if let Some(path) = args.str("path").filter(|path| NEVER_A_MOUNT.contains(path)) {
            return Err(Refusal::new(
                format!("{path} is the host's own: no volume is mounted over it"),
                "mount it at a directory of its own, like /var/lib/clawd",
            ));
        }
        if let Some(instance) = self.instance.as_ref().filter(|instance| is_gone(instance)) {
            return Err(Refusal::new(
                format!("the instance {} is {}", instance.id, instance.state),
                "apply the stack that launches its successor first",
            ));
        }
        if let Some(snapshot) = &self.snapshot {
            refuse_snapshot(snapshot, args)?;
        }
        self.refuse_holder()?;
        let host_zone = self.instance.as_ref().map(|instance| instance.zone.as_str());
        if let (Some(zone), Some(host_zone)) = (args.str("zone"), host_zone)
            && zone != host_zone
        {
            return Err(Refusal::new(
                format!(
                    "the volume is to be in zone {zone}, the host is in {host_zone}: it could not be attached"
                ),
                "leave out `zone`: the volume is made where its host is",
            ));
        }
        let Some(volume) = &self.volume else { return Ok(()) };
        let wanted_zone = host_zone.or(args.str("zone"));
        if let Some(zone) = wanted_zone.filter(|zone| *zone != volume.zone) {
            return Err(Refusal::new(
                format!(
                    "the volume {} is in zone {}, the host in {zone}: EBS volumes do not move",
                    volume.id, volume.zone
                ),
                "keep the host in the volume's zone, or snapshot the volume and give the new one `snapshot`",
            ));
        }
        if let Some(size) = args
            .int("size_gib")
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size < volume.size.0)
        {
            return Err(Refusal::new(
                format!(
                    "the volume {} has {}, and would have to shrink to {size} GiB",
                    volume.id, volume.size
                ),
                format!("volumes only grow: set `size_gib` to {} or more", volume.size.0),
            ));
        }
        if let (Some(mounted), Some(path)) = (&self.mounted, args.str("path"))
            && mounted.source != volume.id
            && self.old.as_ref().is_none_or(|old| old.id != mounted.source)
        {
            return Err(Refusal::new(
                format!("{path} is already the mount of {}, not of {}", mounted.source, volume.id),
                "mount the volume elsewhere, or unmount the other one by hand",
            ));
        }
        if let (Some(mounted), Some(fs)) = (&self.mounted, args.str("fs"))
            && mounted.source == volume.id
            && mounted.fs != fs
        {
            return Err(Refusal::new(
                format!("the volume {} holds {}, not {fs}: it is not formatted anew", volume.id, mounted.fs),
                format!("set `fs` to \"{}\", or move the data to a new volume by hand", mounted.fs),
            ));
        }
        Ok(())
    }

    /// A volume that a running instance has is not taken from it, whether it is to be mounted or to make room.
    fn refuse_holder(&self) -> Result<(), Refusal> {
        let (Some(holder), Some(instance)) = (&self.holder, &self.instance) else { return Ok(()) };
        let held = |it: &&Volume| it.attached_to.as_ref() == Some(&holder.id);
        let Some(volume) = self.volume.iter().chain(&self.old).find(held).filter(|_| !is_gone(holder)) else {
            return Ok(());
        };
        Err(Refusal::new(
            format!(
                "the volume {} is attached to {}, which is {}, not to {}",
                volume.id, holder.id, holder.state, instance.id
            ),
            "stop or replace that instance first; a volume in use is never detached by force",
        ))
    }

    /// What differs between the arguments and what is there, for a volume that exists.
    fn changes(&self, args: &Partial<'_, Args>, volume: &Volume, fs: &str, scope: Scope<'_>) -> Vec<Change> {
        let mut changes = Vec::new();
        if args.str("adopt").is_some() {
            let ours = [
                (TAG_FLEET, scope.target.fleet.as_str()),
                (TAG_STEP, scope.step.as_str()),
                (TAG_HOST, args.str("host").unwrap_or_default()),
            ];
            for (key, after) in ours {
                let before = volume.tags.get(key).map_or(Value::Null, |it| it.as_str().into());
                changes.extend(
                    (before.as_str() != Some(after)).then(|| Change::write(key, before, after.into())),
                );
            }
        }
        let moves = self.instance.is_none() || volume.attached_to.as_deref() != args.str("instance");
        if moves {
            let before = volume.attached_to.as_deref().map_or(Value::Null, Value::from);
            changes.push(Change::write("instance", before, args.planned("instance")));
        }
        let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let size = args.int("size_gib").and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        if size > volume.size.0 {
            changes.push(Change::write("size_gib", number(volume.size.0), number(size)));
        }
        for (key, before) in [("iops", volume.iops), ("throughput", volume.throughput)] {
            let before = before.map_or(Value::Null, |before| number(before.into()));
            if let Some(after) = args.get(key).filter(|after| **after != before && **after != Value::Null) {
                changes.push(Change::write(key, before, after.clone()));
            }
        }
        if let Some(kind) = args.str("type").filter(|kind| *kind != volume.kind) {
            changes.push(Change::write("type", volume.kind.as_str().into(), kind.into()));
        }
        match self.mounted.as_ref().filter(|mounted| mounted.source == volume.id) {
            None => {
                if may_format(volume) && args.get("adopt").is_none() {
                    let before = BLANK.into();
                    changes.push(Change {
                        path: "format".into(),
                        before,
                        after: fs.into(),
                        effect: Effect::Data,
                    });
                }
                // Where it moves to another instance, it is mounted there as it was: that is no change of its own.
                if !moves || state(volume) != FORMATTED {
                    changes.push(Change::write("path", Value::Null, args.planned("path")));
                }
            }
            Some(mounted) => {
                // An interrupted run grew the volume and not the file system, or did not mark what it formatted.
                if mounted.size < volume.size {
                    changes.push(Change::write(
                        "file_system_gib",
                        number(mounted.size.0),
                        number(volume.size.0),
                    ));
                }
                let marked = volume.tags.get(TAG_STATE).map(String::as_str);
                if marked != Some(FORMATTED) {
                    let before = marked.map_or(Value::Null, Value::from);
                    changes.push(Change::write(TAG_STATE, before, FORMATTED.into()));
                }
                changes.extend(owner_changes(mounted, args));
            }
        }
        changes
    }

    /// A volume that is to be made, in the place of another one where it comes from another snapshot.
    fn decide_new(&self, args: &Partial<'_, Args>, planned: Value, zone: Value, fs: &str) -> Decision {
        let mut changes = vec![
            Change::new("size_gib", args.planned("size_gib")),
            Change::new("zone", zone),
            Change::new("instance", args.planned("instance")),
            Change::new("path", args.planned("path")),
        ];
        let Some(snapshot) = args.get("snapshot").filter(|it| **it != Value::Null) else {
            changes.push(Change {
                path: "format".into(),
                before: Value::Null,
                after: fs.into(),
                effect: Effect::Data,
            });
            return Decision::new(Action::Create, "no volume carries this step's tags", planned)
                .changes(changes);
        };
        let before = self.old.as_ref().map_or(Value::Null, |old| old.id.as_str().into());
        changes.push(Change::write("snapshot", before, snapshot.clone()));
        let decision = match &self.old {
            None => Decision::new(Action::Create, "no volume carries this step's tags", planned),
            Some(old) => {
                let reason = format!("{} was not made from this snapshot", old.id);
                Decision::new(Action::Replace, reason, planned)
            }
        };
        let decision = decision.changes(changes);
        match &self.snapshot {
            Some(snapshot) => decision.note(loss(snapshot, self.old.as_ref())),
            None => decision,
        }
    }

    /// What is mounted of EFS, against what is wanted.
    fn decide_efs(&self, args: &Partial<'_, Args>, efs: &str) -> Result<Decision, Refusal> {
        let planned = Value::map([
            ("volume_id", efs.into()),
            ("host", args.planned("host")),
            ("instance", args.planned("instance")),
            ("path", args.planned("path")),
            ("zone", "".into()),
            ("size_gib", 0.into()),
            ("uuid", "".into()),
        ]);
        let Some(mounted) = &self.mounted else {
            let changes = ["efs", "access_point", "instance", "path"];
            let changes = changes.map(|key| Change::new(key, args.planned(key)));
            return Ok(
                Decision::new(Action::Create, "it is not mounted on the host", planned).changes(changes)
            );
        };
        if mounted.source != efs {
            return Err(Refusal::new(
                format!("{} is already the mount of {}, not of {efs}", mounted.path, mounted.source),
                "mount the file system elsewhere, or unmount the other one by hand",
            ));
        }
        let changes = owner_changes(mounted, args);
        if changes.is_empty() {
            return Ok(Decision::no_op(format!("{efs} is mounted"), planned));
        }
        let what: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        let reason = format!("{efs} differs in {}", what.join(", "));
        Ok(Decision::new(Action::Update, reason, planned).changes(changes))
    }
}

/// Whose the mount's root is, against whose it is to be.
fn owner_changes(mounted: &MountReport, args: &Partial<'_, Args>) -> Vec<Change> {
    let wanted = [("owner", &mounted.owner), ("group", &mounted.group), ("mode", &mounted.mode)];
    wanted
        .into_iter()
        .filter_map(|(key, before)| {
            let default = if key == "mode" { default_mode() } else { default_owner() };
            let after = args.get(key).cloned().unwrap_or_else(|| default.into());
            // `750` and `0750` are one mode.
            let same =
                after.as_str().map(|it| it.trim_start_matches('0')) == Some(before.trim_start_matches('0'));
            (!same).then(|| Change::write(key, before.as_str().into(), after))
        })
        .collect()
}

/// The old volume stays, and is found no more.
fn supersedes(old: &Volume, by: &str) -> Change {
    let before = old.tags.get(TAG_STATE).map_or(Value::Null, |it| it.as_str().into());
    Change::write(format!("{} {TAG_STATE}", old.id), before, format!("{SUPERSEDED}{by}").into())
}

/// Arguments that mean nothing beside each other.
fn contradictions(args: &Partial<'_, Args>) -> Result<(), Refusal> {
    let given = |key: &str| args.get(key).is_some_and(|value| *value != Value::Null);
    if given("efs") {
        let volumes =
            ["size_gib", "type", "iops", "throughput", "kms_key", "snapshot", "adopt", "zone", "fs"];
        if let Some(key) = volumes.into_iter().find(|key| given(key)) {
            return Err(Refusal::new(
                format!("`{key}` says something of a volume, and `efs` is none"),
                format!("leave out `{key}`, or `efs`"),
            ));
        }
        if !given("access_point") {
            return Err(Refusal::new(
                "`efs` without `access_point` would give the host the whole file system",
                "give the host's access point, `fsap-...`: `tofu/base` makes one",
            ));
        }
        return Ok(());
    }
    if given("access_point") {
        return Err(Refusal::new("`access_point` without `efs` means nothing", "give `efs`, `fs-...`"));
    }
    if !given("size_gib") {
        return Err(Refusal::new("a volume has no size", "give `size_gib`"));
    }
    if given("adopt") && given("snapshot") {
        return Err(Refusal::new(
            "`adopt` takes a volume that is there, `snapshot` makes a new one",
            "leave out one of them",
        ));
    }
    Ok(())
}

/// A snapshot that no volume of these arguments can be made from.
fn refuse_snapshot(snapshot: &Snapshot, args: &Partial<'_, Args>) -> Result<(), Refusal> {
    if snapshot.state != "completed" {
        return Err(Refusal::new(
            format!("the snapshot {} is {}", snapshot.id, snapshot.state),
            "wait until it is completed, or name another",
        ));
    }
    let size = args.int("size_gib").and_then(|size| u64::try_from(size).ok());
    if let Some(size) = size.filter(|size| *size < snapshot.size.0) {
        return Err(Refusal::new(
            format!(
                "the snapshot {} is of a volume of {}, and {size} GiB cannot hold it",
                snapshot.id, snapshot.size
            ),
            format!("set `size_gib` to {} or more", snapshot.size.0),
        ));
    }
    Ok(())
}

/// What is lost with data that is taken from a snapshot.
fn loss(snapshot: &Snapshot, old: Option<&Volume>) -> String {
    let begun = jiff::Timestamp::from_second(snapshot.created)
        .map_or_else(|_| "long ago".to_owned(), |at| at.to_string());
    let written = match old {
        Some(old) => format!(
            "what was written to {} since then is not in it; that volume stays, marked as superseded",
            old.id
        ),
        None => "what was written since then is not in it".to_owned(),
    };
    format!("data loss: {} is of {begun}, and {written}", snapshot.id)
}
