//! The parts of `scripts/bench` that measure uploads: a server that accepts what it is sent and drops it, and an upload as
//! `import_ami` makes it, without nix before and EC2 after it.
//!
//!     upload_bench serve                            prints `ready PORT`, serves until its standard input closes
//!     upload_bench hash IMAGE MANIFEST              writes the manifest that an upload of IMAGE leaves
//!     upload_bench ebs ENDPOINT IMAGE [MANIFEST]    sends IMAGE through EBS direct, on top of an upload when it is given
//!     upload_bench s3 ENDPOINT IMAGE                sends IMAGE in parts, as for ImportSnapshot

#![allow(clippy::disallowed_methods, clippy::exit, clippy::print_stdout, clippy::unwrap_used)] // a tool for benchmarks

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use clawd::image::{BlockSet, Manifest};
use clawd::providers::aws::{self, Settings};
use clawd::providers::ports::{
    BlockUpload, Blocks, Completion, DiskFile, ObjectPlace, SnapshotStart, Tags, Upload, Watch,
};
use clawd::units::{Bytes as Size, GiB, Seconds};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

static SENT: AtomicU64 = AtomicU64::new(0);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let one_thread = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match words.as_slice() {
        ["serve"] => tokio::runtime::Runtime::new().unwrap().block_on(serve()),
        ["ebs", endpoint, image] => one_thread.block_on(ebs(endpoint, image, None)),
        ["ebs", endpoint, image, manifest] => one_thread.block_on(ebs(endpoint, image, Some(manifest))),
        ["hash", image, manifest] => hash(image, manifest),
        ["s3", endpoint, image] => one_thread.block_on(s3(endpoint, image)),
        _ => panic!(
            "upload_bench serve | hash IMAGE MANIFEST | ebs ENDPOINT IMAGE [MANIFEST] | s3 ENDPOINT IMAGE"
        ),
    }
}

async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("ready {}", listener.local_addr().unwrap().port());
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        });
    }
}

/// What each call is answered with. Bodies are read and dropped.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let xml = |text: &str| {
        Response::builder().header("content-type", "text/xml").body(Full::new(Bytes::from(text.to_owned())))
    };
    let json = |status: u16, text: &str| {
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(text.to_owned())))
    };
    let response = match (head.method.clone(), path) {
        (Method::GET, "/sent") => xml(&SENT.swap(0, Ordering::SeqCst).to_string()),
        (Method::POST, "/snapshots") => json(
            201,
            r#"{"SnapshotId":"snap-0123456789abcdef0","BlockSize":524288,"VolumeSize":8,"StartTime":0,"Status":"pending","OwnerId":"123456789012"}"#,
        ),
        (Method::PUT, path) if path.contains("/blocks/") => {
            SENT.fetch_add(length, Ordering::SeqCst);
            let checksum = head.headers.get("x-amz-checksum").cloned();
            let mut response = Response::builder().status(201).header("x-amz-checksum-algorithm", "SHA256");
            if let Some(checksum) = checksum {
                response = response.header("x-amz-checksum", checksum);
            }
            response.body(Full::new(Bytes::from_static(b"{}")))
        }
        (Method::POST, path) if path.contains("/completion/") => json(202, r#"{"Status":"completed"}"#),
        (Method::POST, "/") => xml(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>arn:aws:iam::123456789012:user/bench</Arn><UserId>U</UserId><Account>123456789012</Account>\
             </GetCallerIdentityResult></GetCallerIdentityResponse>",
        ),
        (Method::PUT, _) => {
            SENT.fetch_add(length, Ordering::SeqCst);
            Response::builder().header("etag", "\"e\"").body(Full::default())
        }
        (Method::POST, _) if query.contains("uploads") => xml(
            "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>",
        ),
        (Method::POST, _) => xml(
            "<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag>\"e\"</ETag></CompleteMultipartUploadResult>",
        ),
        (Method::GET, _) if query.contains("uploads") => {
            xml("<ListMultipartUploadsResult></ListMultipartUploadsResult>")
        }
        (Method::GET, _) => xml("<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"),
        (Method::HEAD, path) if path.trim_matches('/').contains('/') => {
            Response::builder().status(404).body(Full::default())
        }
        _ => Response::builder().body(Full::default()),
    };
    Ok(response.unwrap())
}

struct Quiet;

impl Watch for Quiet {
    fn progress(&self, _: &str) {}

    fn stored(&self, _: &BlockSet) {}
}

fn adapter(endpoint: &str, cache: &Path) -> std::sync::Arc<dyn Upload> {
    let (_, upload, _) = aws::adapters(Settings {
        profile: "bench".into(),
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        endpoint: Some(endpoint.into()),
        test_credentials: true,
        // The server has no quota; the client is measured, not the quota.
        puts_per_second: NonZeroU32::MAX,
        answer_timeout: aws::ANSWER_TIMEOUT,
        cache: cache.to_owned(),
    });
    upload
}

/// The image as `build_image` hands it over: its sha256 was found when it was built.
fn disk(path: &str) -> DiskFile {
    let size = std::fs::metadata(path).unwrap().len();
    DiskFile { path: path.into(), size: Size(size), sha256: format!("{size:0>64x}") }
}

fn hash(image: &str, manifest: &str) {
    let DiskFile { size, sha256, .. } = disk(image);
    let blocks = clawd::providers::process::block_map(Path::new(image), size).unwrap();
    let kept = Manifest { snapshot_id: "snap-0fedcba9876543210".into(), sha256, blocks };
    std::fs::write(manifest, kept.encode()).unwrap();
}

async fn ebs(endpoint: &str, image: &str, manifest: Option<&str>) {
    let cache = tempfile::tempdir().unwrap();
    let upload = adapter(endpoint, cache.path());
    let parent = manifest.map(|file| Manifest::decode(&std::fs::read(file).unwrap()).unwrap());
    let disk = disk(image);
    let start = SnapshotStart {
        description: "bench".into(),
        size: GiB::holding(disk.size),
        parent: parent.as_ref().map(|it| it.snapshot_id.clone()),
        kms_key: None,
        timeout: Seconds(3600),
        tags: Tags::new(),
    };
    let snapshot = upload.start_snapshot("token", &start).await.unwrap();
    let blocks = match &parent {
        None => Blocks::WithData,
        Some(parent) => {
            let map = upload.blocks(&disk).await.unwrap();
            let send = map.to_send(Some(&parent.blocks));
            Blocks::These { map, send }
        }
    };
    let job = BlockUpload { snapshot: snapshot.clone(), image: disk, blocks };
    let map = upload.put_blocks(&job, &Quiet).await.unwrap();
    let send = map.to_send(parent.as_ref().map(|it| &it.blocks));
    let checksum = map.linear_checksum(&send);
    upload.complete_snapshot(&Completion { snapshot, blocks: send.len(), checksum }).await.unwrap();
}

async fn s3(endpoint: &str, image: &str) {
    let cache = tempfile::tempdir().unwrap();
    let place = ObjectPlace { bucket: "bucket".into(), key: "image.raw".into() };
    adapter(endpoint, cache.path()).put_object(&disk(image), &place, &Quiet).await.unwrap();
}
