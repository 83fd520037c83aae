//! Where a memory is shared or published: a URL as a store.

use std::path::Path;
use std::sync::Arc;

use super::Problem;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::render::printable;
use crate::providers::ports::MemoryStore;
use crate::providers::process::memory_store;

/// A shared memory by its URL.
enum Remote<'a> {
    /// A directory of this machine.
    Dir(&'a Path),
    /// A prefix of a bucket.
    S3 { bucket: &'a str, prefix: &'a str },
}

impl<'a> Remote<'a> {
    fn parse(url: &'a str) -> Result<Self, Problem> {
        if let Some(dir) = url.strip_prefix("file://").filter(|dir| dir.starts_with('/')) {
            return Ok(Self::Dir(Path::new(dir)));
        }
        if let Some(place) = url.strip_prefix("s3://") {
            let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
            let letters =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
            if (3..=63).contains(&bucket.len()) && bucket.bytes().all(letters) {
                return Ok(Self::S3 { bucket, prefix });
            }
        }
        let usage = Diagnostic::error(Code::Usage, format!("`{}` is no shared memory", printable(url)));
        Err(Problem::Usage(usage.help("s3://BUCKET/PREFIX, or file:///DIR, a directory of this machine")))
    }
}

/// The store that a URL names. `probe` is a key that may be written there.
pub(super) fn store(remote: &str, probe: &str) -> Result<Arc<dyn MemoryStore>, Problem> {
    match Remote::parse(remote)? {
        Remote::S3 { bucket, prefix } => s3_store(bucket, prefix, probe),
        Remote::Dir(dir) => memory_store(dir).map_err(|error| {
            let usage = Diagnostic::error(Code::Usage, error.to_string());
            Problem::Usage(usage.help("name a directory that can be written"))
        }),
    }
}

/// A memory in S3, as whoever the environment or the host's role says.
#[cfg(feature = "aws")]
fn s3_store(bucket: &str, prefix: &str, probe: &str) -> Result<Arc<dyn MemoryStore>, Problem> {
    use crate::providers::aws;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let settings = aws::Settings {
        profile: "default".to_owned(),
        account: String::new(),
        region: variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).unwrap_or_default(),
        endpoint,
        test_credentials: false,
        puts_per_second: aws::PUTS_PER_SECOND,
        answer_timeout: aws::ANSWER_TIMEOUT,
        cache: std::path::PathBuf::new(),
    };
    Ok(aws::memory_store(settings, bucket, prefix, probe))
}

/// A memory in S3, which this build leaves out.
#[cfg(not(feature = "aws"))]
fn s3_store(_: &str, _: &str, _: &str) -> Result<Arc<dyn MemoryStore>, Problem> {
    let usage = Diagnostic::error(Code::Usage, "this clawd was built without the adapters for AWS");
    Err(Problem::Usage(usage.help("build it with the default features, or use file:///DIR")))
}
