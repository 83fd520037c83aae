//! One moto for all tests of the process, on a free port. It ends when this process does: its standard input closes.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;

use crate::support::repository;

/// The version that `tests/moto/requirements.txt` pins.
const VERSION: &str = "5.2.5";

/// A running moto.
pub(crate) struct Moto {
    port: u16,
    /// Held open for as long as moto is to run.
    _stdin: ChildStdin,
    _child: Child,
}

static MOTO: LazyLock<Moto> = LazyLock::new(start);

/// The python of the environment that `scripts/setup` makes.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let python = cache.unwrap_or_default().join(format!("clawd/moto-{VERSION}/bin/python"));
    assert!(python.exists(), "moto is missing: there is no {}; run scripts/setup", python.display());
    python
}

fn start() -> Moto {
    let mut child = Command::new(python())
        .arg(repository().join("tests/moto/launcher.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("moto cannot be started: {error}"));
    let stdin = child.stdin.take().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().strip_prefix("ready ").and_then(|port| port.parse().ok());
    let port =
        port.unwrap_or_else(|| panic!("moto did not start, it said {line:?}; run tests/moto/check.py"));
    Moto { port, _stdin: stdin, _child: child }
}

impl Moto {
    /// Where it listens.
    pub(crate) fn port() -> u16 {
        MOTO.port
    }
}

/// The account of all credentials.
const ACCOUNT: &str = "123456789012";

/// One request without the SDK: what tests set up or look at behind clawd's back. Moto takes any signature.
fn request(region: &str, service: &str, head: &str, body: &str) -> String {
    request_of(ACCOUNT, region, service, head, body)
}

/// The same by an account.
fn request_of(account: &str, region: &str, service: &str, head: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let kind = if service == "s3" { "application/xml" } else { "application/x-www-form-urlencoded" };
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", Moto::port())).unwrap();
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: {kind}\r\nX-Amz-Date: 20260101T000000Z\r\nx-moto-account-id: {account}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 2"), "{head} {body}: {answer}");
    answer
}

/// An EC2 call as a form, `Action=RunInstances&...`.
pub(crate) fn ec2(form: &str) -> String {
    ec2_in("eu-central-1", form)
}

/// The same in a region.
pub(crate) fn ec2_in(region: &str, form: &str) -> String {
    request(region, "ec2", "POST /", form)
}

/// Launches an instance in the first zone; its id.
pub(crate) fn launch() -> String {
    let form = "Action=RunInstances&ImageId=ami-03cf127a&MinCount=1&MaxCount=1&InstanceType=t3.large&Placement.AvailabilityZone=eu-central-1a";
    let answer = ec2(form);
    let id = answer.split("<instanceId>").nth(1).and_then(|rest| rest.split('<').next());
    id.unwrap_or_else(|| panic!("no instance: {answer}")).to_owned()
}

/// Makes a bucket.
pub(crate) fn make_bucket(name: &str) {
    make_bucket_of(ACCOUNT, name);
}

/// Makes a bucket of an account.
pub(crate) fn make_bucket_of(account: &str, name: &str) {
    let body = "<CreateBucketConfiguration><LocationConstraint>eu-central-1</LocationConstraint></CreateBucketConfiguration>";
    request_of(account, "eu-central-1", "s3", &format!("PUT /{name}"), body);
}

/// A setting of a bucket, `versioning`, as S3 tells it.
pub(crate) fn setting(bucket: &str, word: &str) -> String {
    let answer = request("eu-central-1", "s3", &format!("GET /{bucket}?{word}"), "");
    answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())
}

/// Sets a setting of a bucket.
pub(crate) fn set(bucket: &str, word: &str, body: &str) {
    request("eu-central-1", "s3", &format!("PUT /{bucket}?{word}"), body);
}

/// The keys in a bucket.
pub(crate) fn keys(bucket: &str) -> Vec<String> {
    let answer = request("eu-central-1", "s3", &format!("GET /{bucket}?list-type=2"), "");
    answer.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).map(str::to_owned).collect()
}

/// Puts an object.
pub(crate) fn put_object(bucket: &str, key: &str, body: &str) {
    request("eu-central-1", "s3", &format!("PUT /{bucket}/{key}"), body);
}

/// Removes an object.
pub(crate) fn delete_object(bucket: &str, key: &str) {
    request("eu-central-1", "s3", &format!("DELETE /{bucket}/{key}"), "");
}
