//! What is in the simulated world: records by table and key, in memory.
//!
//! A change is a list of records, each in full: a record takes the place of the row with its key, and `Gone` takes
//! the row away. Never touches the disk, which is `world`'s business.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::providers::ports::{
    BuiltImage, Image, ImportTask, Instance, MemoryStatus, MountReport, Snapshot, TAG_CONTENT, TAG_STEP,
    Tags, Volume,
};
use crate::units::Bytes;
use crate::value::{Map, Value};

/// One record of a table. A region is empty for the home region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "snake_case")]
pub(super) enum Record {
    Image {
        row: Image,
        ready_at: i64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        region: String,
        /// Who may launch it besides its owner.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        launch: BTreeSet<String>,
    },
    Snapshot {
        row: Snapshot,
        ready_at: i64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        region: String,
        /// What was put into one that is not complete yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upload: Option<Sent>,
        /// What was on the volume it is of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
    },
    Volume {
        row: Volume,
        ready_at: i64,
        content: Option<Content>,
    },
    Instance {
        row: Instance,
        gone_at: Option<i64>,
    },
    Store {
        path: String,
        row: BuiltImage,
    },
    Stack {
        key: String,
        row: Stack,
    },
    Mount {
        instance: String,
        row: MountReport,
    },
    Memory {
        instance: String,
        row: MemoryStatus,
    },
    Token {
        token: String,
        params: String,
        result: String,
    },
    Object {
        bucket: String,
        key: String,
        size: Bytes,
        sha256: String,
    },
    /// An import; its row names the snapshot from the beginning, who asks learns of it at the end.
    Task {
        row: ImportTask,
        ready_at: i64,
    },
    /// What a manifest can be made from again: the blocks follow from hash and size of the image.
    Manifest {
        snapshot: String,
        sha256: String,
        size: Bytes,
    },
    /// Takes a row away. Never a row itself.
    Gone {
        of: Removable,
        key: String,
    },
}

/// Tables whose rows can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Removable {
    Image,
    Snapshot,
    Object,
    Volume,
    Mount,
}

/// What was put into a snapshot so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Sent {
    /// A block set in its written form.
    pub(super) blocks: String,
}

/// What is on a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) fs: String,
    pub(super) uuid: String,
}

/// A stack's state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Stack {
    pub(super) serial: u64,
    pub(super) resources: BTreeMap<String, Map>,
    pub(super) outputs: Value,
    /// What resources were last replaced for, by address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) triggers: BTreeMap<String, String>,
}

/// A table and a key in it.
type Place = (&'static str, String);

/// A table, what its rows are looked up by, and the value.
type IndexKey = (&'static str, &'static str, String);

/// The index key of image names.
const NAME: &str = "name";

/// Tags that rows are looked up by.
const INDEXED: [&str; 2] = [TAG_STEP, TAG_CONTENT];

/// The key of an object in its table.
pub(super) fn object_key(bucket: &str, key: &str) -> String {
    format!("{bucket}/{key}")
}

impl Removable {
    const fn table(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Snapshot => "snapshot",
            Self::Object => "object",
            Self::Volume => "volume",
            Self::Mount => "mount",
        }
    }
}

impl Record {
    /// Table and key.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Image { row, .. } => ("image", row.id.clone()),
            Self::Snapshot { row, .. } => ("snapshot", row.id.clone()),
            Self::Volume { row, .. } => ("volume", row.id.clone()),
            Self::Instance { row, .. } => ("instance", row.id.clone()),
            Self::Store { path, .. } => ("store", path.clone()),
            Self::Stack { key, .. } => ("stack", key.clone()),
            Self::Mount { instance, row } => ("mount", format!("{instance}#{}", row.path)),
            Self::Memory { instance, row } => ("memory", format!("{instance}#{}", row.config.dir)),
            Self::Token { token, .. } => ("token", token.clone()),
            Self::Object { bucket, key, .. } => ("object", object_key(bucket, key)),
            Self::Task { row, .. } => ("task", row.id.clone()),
            Self::Manifest { snapshot, .. } => ("manifest", snapshot.clone()),
            Self::Gone { of, key } => (of.table(), key.clone()),
        }
    }

    /// The region it is in; empty for the home region.
    pub(super) fn region(&self) -> &str {
        match self {
            Self::Image { region, .. } | Self::Snapshot { region, .. } => region.as_str(),
            _ => "",
        }
    }

    /// The tags of what EC2 lets be tagged.
    pub(super) fn tags_mut(&mut self) -> Option<&mut Tags> {
        match self {
            Self::Image { row, .. } => Some(&mut row.tags),
            Self::Snapshot { row, .. } => Some(&mut row.tags),
            Self::Volume { row, .. } => Some(&mut row.tags),
            _ => None,
        }
    }

    /// What it is looked up by, besides its key.
    fn index_keys(&self) -> Vec<IndexKey> {
        let (table, name, tags) = match self {
            Self::Image { row, .. } => ("image", Some(&row.name), &row.tags),
            Self::Snapshot { row, .. } => ("snapshot", None, &row.tags),
            Self::Volume { row, .. } => ("volume", None, &row.tags),
            _ => return Vec::new(),
        };
        let name = name.map(|name| (table, NAME, name.clone()));
        let tagged = INDEXED.into_iter().filter_map(|key| Some((table, key, tags.get(key)?.clone())));
        name.into_iter().chain(tagged).collect()
    }

    /// Whether people are shown it.
    pub(super) const fn is_listed(&self) -> bool {
        !matches!(self, Self::Token { .. } | Self::Manifest { .. } | Self::Gone { .. })
    }

    /// What matters of it to people.
    pub(super) fn detail(&self) -> String {
        let place = match self.region() {
            "" => String::new(),
            region => format!(" in {region}"),
        };
        match self {
            Self::Image { row, .. } => format!("{}{place}", row.name),
            Self::Snapshot { row, upload, .. } => {
                let unfinished = if upload.is_some() { ", unfinished" } else { "" };
                format!("{}{place}{unfinished}", row.size)
            }
            Self::Volume { row, content, .. } => format!(
                "{} in {}, {}, {}",
                row.size,
                row.zone,
                row.attached_to.as_deref().map_or("free".to_owned(), |to| format!("attached to {to}")),
                content.as_ref().map_or("blank", |content| content.fs.as_str()),
            ),
            Self::Instance { row, gone_at } => {
                let state = if gone_at.is_some() { "terminated" } else { row.state.as_str() };
                format!("{state}, {} in {}", row.image_id, row.zone)
            }
            Self::Store { row, .. } => row.size.to_string(),
            Self::Stack { row, .. } => format!("serial {}, {} resources", row.serial, row.resources.len()),
            Self::Mount { row, .. } => format!("{} {}", row.source, row.fs),
            Self::Memory { row, .. } => format!("{}, {} files", row.config.remote, row.files),
            Self::Object { size, .. } => size.to_string(),
            Self::Task { row, .. } => {
                row.snapshot_id.as_deref().map_or_else(String::new, |id| format!("into {id}"))
            }
            Self::Token { .. } | Self::Manifest { .. } | Self::Gone { .. } => String::new(),
        }
    }
}

/// A change as it is logged.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Transaction {
    now: i64,
    next_id: u64,
    puts: Vec<Record>,
}

impl Transaction {
    /// Whether it changes no row.
    pub(super) fn is_empty(&self) -> bool {
        self.puts.is_empty()
    }
}

/// The tables in memory.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Virtual time, seconds since the epoch.
    pub(super) now: i64,
    next_id: u64,
    rows: BTreeMap<Place, Record>,
    /// Keys of rows by what they are looked up by: some tags, and the names of images. A row keeps its place under
    /// a tag that changed since, so who looks up filters again.
    index: BTreeMap<IndexKey, BTreeSet<String>>,
}

impl Tables {
    /// Empty tables, at a moment.
    pub(super) fn beginning_at(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    /// Makes a change.
    pub(super) fn apply(&mut self, transaction: Transaction) {
        self.now = self.now.max(transaction.now);
        self.next_id = transaction.next_id;
        for record in transaction.puts {
            self.put(record);
        }
    }

    /// Everything, as one change of empty tables.
    pub(super) fn whole(&self) -> Transaction {
        Transaction { now: self.now, next_id: self.next_id, puts: self.rows.values().cloned().collect() }
    }

    /// Begins a change.
    pub(super) fn draft(&self) -> Draft<'_> {
        Draft { tables: self, next_id: self.next_id, puts: Vec::new() }
    }

    fn put(&mut self, record: Record) {
        let place = record.place();
        if matches!(record, Record::Gone { .. }) {
            self.remove(&place);
            return;
        }
        for key in record.index_keys() {
            self.index.entry(key).or_default().insert(place.1.clone());
        }
        self.rows.insert(place, record);
    }

    fn remove(&mut self, place: &Place) {
        let Some(record) = self.rows.remove(place) else {
            return;
        };
        for key in record.index_keys() {
            if let Some(keys) = self.index.get_mut(&key) {
                keys.remove(&place.1);
            }
        }
    }

    /// How many rows there are.
    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// All rows, by table and key.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Record> {
        self.rows.values()
    }

    pub(super) fn get(&self, table: &'static str, key: &str) -> Option<&Record> {
        self.rows.get(&(table, key.to_owned()))
    }

    /// The records of a table in key order.
    pub(super) fn table(&self, table: &'static str) -> impl Iterator<Item = &Record> {
        self.with_prefix(table, "")
    }

    /// The records of a table whose keys begin with a prefix.
    pub(super) fn with_prefix<'a>(
        &'a self,
        table: &'static str,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Record> {
        self.rows
            .range((table, prefix.to_owned())..)
            .take_while(move |((name, key), _)| *name == table && key.starts_with(prefix))
            .map(|(_, row)| row)
    }

    /// The rows of a table that may carry all these tags; the caller filters.
    pub(super) fn tagged<'a>(&'a self, table: &'static str, tags: &[(&str, &str)]) -> Vec<&'a Record> {
        let indexed = tags.iter().find_map(|(key, value)| {
            let key = INDEXED.into_iter().find(|known| known == key)?;
            Some((table, key, (*value).to_owned()))
        });
        match indexed {
            Some(place) => {
                self.index.get(&place).into_iter().flatten().filter_map(|id| self.get(table, id)).collect()
            }
            None => self.table(table).collect(),
        }
    }

    /// The image of a region with a name.
    pub(super) fn image_named(&self, region: &str, name: &str) -> Option<&Record> {
        let ids = self.index.get(&("image", NAME, name.to_owned()))?;
        ids.iter().filter_map(|id| self.get("image", id)).find(|record| record.region() == region)
    }
}

/// A change in the making: what it puts becomes visible and durable together.
pub(super) struct Draft<'a> {
    tables: &'a Tables,
    next_id: u64,
    puts: Vec<Record>,
}

impl Draft<'_> {
    /// The tables before the change.
    pub(super) fn tables(&self) -> &Tables {
        self.tables
    }

    pub(super) fn put(&mut self, record: Record) {
        self.puts.push(record);
    }

    /// A fresh id in EC2's form: a prefix and 17 hex digits.
    pub(super) fn fresh_id(&mut self, prefix: &str) -> String {
        self.next_id += 1;
        let digest = crate::digest::sha256_hex(format!("{prefix}{}", self.next_id).as_bytes());
        format!("{prefix}-0{}", &digest[..16])
    }

    /// The change, to be logged.
    pub(super) fn finish(self, now: i64) -> Transaction {
        let Self { next_id, puts, .. } = self;
        Transaction { now, next_id, puts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, region: &str) -> Record {
        let row = Image {
            id: id.to_owned(),
            name: "base".to_owned(),
            state: "pending".to_owned(),
            state_reason: None,
            snapshot_id: "snap-1".to_owned(),
            architecture: "x86_64".to_owned(),
            boot_mode: "uefi".to_owned(),
            root_device: "/dev/xvda".to_owned(),
            tags: Tags::from([(TAG_CONTENT.to_owned(), "c".to_owned())]),
            created: 0,
            deprecated: None,
        };
        Record::Image { row, ready_at: 0, region: region.to_owned(), launch: BTreeSet::new() }
    }

    fn change(tables: &mut Tables, records: Vec<Record>) {
        let mut draft = tables.draft();
        records.into_iter().for_each(|record| draft.put(record));
        let transaction = draft.finish(1);
        // As it is read back from the log.
        let json = serde_json::to_string(&transaction).unwrap();
        tables.apply(serde_json::from_str(&json).unwrap());
    }

    #[test]
    fn what_is_gone_leaves_its_table_and_its_name() {
        let mut tables = Tables::beginning_at(0);
        change(&mut tables, vec![image("ami-1", ""), image("ami-2", "us-east-1")]);
        assert_eq!(tables.image_named("", "base"), Some(&image("ami-1", "")));
        assert_eq!(tables.image_named("us-east-1", "base"), Some(&image("ami-2", "us-east-1")));
        assert_eq!(tables.image_named("us-west-2", "base"), None);
        let gone = |key: &str| Record::Gone { of: Removable::Image, key: key.to_owned() };
        change(&mut tables, vec![gone("ami-1"), gone("ami-9")]);
        assert_eq!(tables.image_named("", "base"), None);
        assert_eq!(tables.tagged("image", &[(TAG_CONTENT, "c")]), [&image("ami-2", "us-east-1")]);
        assert_eq!((tables.count(), tables.get("image", "ami-1")), (1, None));
    }
}
