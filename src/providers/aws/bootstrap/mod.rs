//! The bucket that the states of a profile's stacks and their locks lie in: made where it is not there, completed where it is.
//!
//! Every setting is looked at first and written only where it is not as it must be, so a second run changes nothing. Never
//! empties or deletes anything, and never takes away what others have set: statements of the policy, lifecycle rules, tags,
//! stronger encryption. Fails where the bucket is another account's, in another region, or was made for something else.

mod bucket;
mod decide;
mod model;
mod policy;
mod write;

pub use model::{BucketChange, BucketPlan};

use std::time::Duration;

use self::bucket::Bucket;
use self::model::Wanted;
use super::{Session, Settings};
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::Answer;

/// Pauses before another look or try. S3 shows a setting late at times, and takes one change of a bucket's access at a time.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Makes and completes a profile's bucket of states.
pub struct Bootstrap {
    session: Session,
    wanted: Wanted,
}

/// Tries again what may pass.
async fn until_it_passes<F>(call: impl Fn() -> F) -> Answer<()>
where
    F: Future<Output = Answer<()>>,
{
    for pause in PAUSES {
        match call().await {
            Err(error) if error.kind.is_retryable() => tokio::time::sleep(pause).await,
            done => return done,
        }
    }
    call().await
}

impl Bootstrap {
    /// For a bucket of a fleet. Nothing is called yet.
    #[must_use]
    pub fn new(settings: Settings, bucket: String, fleet: String) -> Self {
        let wanted = Wanted { bucket, fleet, region: settings.region.clone() };
        Self { session: Session::new(settings), wanted }
    }

    /// Looks at the bucket and says what is to be done. Changes nothing.
    pub async fn plan(&self) -> Answer<BucketPlan> {
        Bucket::open(&self.session, &self.wanted).await?.plan().await
    }

    /// Does what was shown, as far as it is still to be done, and reads it back. Tells of each thing that was written.
    pub async fn make(&self, shown: &BucketPlan, tell: &mut dyn FnMut(&str)) -> Answer<()> {
        let bucket = Bucket::open(&self.session, &self.wanted).await?;
        let mut plan = bucket.plan().await?;
        conforms(bucket.name(), shown, &plan)?;
        if !plan.exists {
            until_it_passes(|| bucket.create()).await?;
            tell("created");
            // What S3 sets by itself on a new bucket need not be written.
            plan = shows(&bucket, |plan| plan.exists).await?;
            if !plan.exists {
                return Err(late(bucket.name(), "itself"));
            }
        }
        for change in &plan.changes {
            until_it_passes(|| bucket.write(&change.write)).await?;
            tell(&format!("{} {}", change.setting, change.after));
        }
        let left = shows(&bucket, |plan| !plan.has_changes()).await?;
        if left.has_changes() {
            let settings: Vec<&str> = left.changes.iter().map(|change| change.setting).collect();
            return Err(late(bucket.name(), &settings.join(", ")));
        }
        Ok(())
    }
}

/// Looks until what was written shows; returns the last look.
async fn shows(bucket: &Bucket<'_>, is_so: impl Fn(&BucketPlan) -> bool) -> Answer<BucketPlan> {
    let mut plan = bucket.plan().await?;
    for pause in PAUSES {
        if is_so(&plan) {
            break;
        }
        tokio::time::sleep(pause).await;
        plan = bucket.plan().await?;
    }
    Ok(plan)
}

fn late(bucket: &str, what: &str) -> ProviderError {
    let message = format!("the bucket {bucket} was written and does not show it yet: {what}");
    ProviderError::new(ErrorKind::Transient, "s3 read-back", message)
        .help("S3 can take some minutes: run it again then; it writes only what still differs")
}

/// Refuses to do more than was shown.
fn conforms(bucket: &str, shown: &BucketPlan, now: &BucketPlan) -> Answer<()> {
    let moved = |what: String| {
        Err(ProviderError::new(ErrorKind::Moved, "s3 bootstrap", what)
            .help("somebody else is at work on it; nothing was done: look at the new plan"))
    };
    if shown.exists && !now.exists {
        return moved(format!("the bucket {bucket} was there when the plan was shown, and is gone"));
    }
    let was_shown = |setting: &str| shown.changes.iter().any(|change| change.setting == setting);
    match now.changes.iter().find(|change| !was_shown(change.setting)) {
        Some(change) => moved(format!(
            "the bucket {bucket}: {} was right when the plan was shown, and is not",
            change.setting
        )),
        None => Ok(()),
    }
}
