//! A proxy in front of moto: records every call, and breaks those that a rule names: throttled, failed, cut off before or
//! after the effect, never answered, or answered with something else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::Moto;

/// One call as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// `ec2 RegisterImage`, `ebs PutSnapshotBlock`, `s3 UploadPart`.
    pub(crate) operation: String,
    /// How many calls of this operation came before it.
    pub(crate) number: usize,
    /// How many calls came before it.
    pub(crate) at: usize,
    /// Path and query.
    pub(crate) target: String,
    /// Bytes of its body.
    pub(crate) sent: usize,
    /// The body, when it is text: a form, or the JSON of a snapshot's start.
    pub(crate) form: String,
}

impl Call {
    /// Whether it changes something.
    pub(crate) fn mutates(&self) -> bool {
        let call = self.operation.split_once(' ').map_or("", |(_, call)| call);
        !["Describe", "Get", "List", "Head"].iter().any(|reading| call.starts_with(reading))
    }

    pub(crate) fn is(&self, operation: &str) -> bool {
        self.operation == operation
    }
}

/// What happens to a call.
#[derive(Clone)]
pub(crate) enum Fault {
    /// Answered with this status, code and message; moto never sees it.
    Refuse(u16, &'static str, &'static str),
    /// The connection is cut; moto never sees it.
    CutBefore,
    /// Moto has the call, its answer is lost.
    CutAfter,
    /// Never answered; moto never sees it.
    Hang,
    /// Answered with this body instead of moto's.
    Instead(&'static str),
    /// The same, with the import task's id that was asked for in the place of `@`.
    InsteadOfTask(&'static str),
    /// Moto has the call without this header, as a server has it that does not know it.
    Without(&'static str),
    /// Something is done after moto had the call; then the connection is cut.
    After(Arc<dyn Fn() + Send + Sync>),
    /// Something is done before moto has the call; then the connection is cut.
    Before(Arc<dyn Fn() + Send + Sync>),
}

type Rule = Arc<dyn Fn(&Call) -> Option<Fault> + Send + Sync>;

/// A running proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy that passes everything on.
    pub(crate) fn plain() -> Self {
        Self::with(|_| None)
    }

    /// A proxy with a rule.
    pub(crate) fn with(rule: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let rule: Rule = Arc::new(rule);
        let calls = Arc::new(Mutex::new(Vec::new()));
        let upstream = Moto::port();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let seen = Arc::clone(&calls);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let serve = serve(TcpListener::from_std(listener).unwrap(), upstream, rule, seen);
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        Self { address, calls, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Forgets the calls so far.
    pub(crate) fn forget(&self) {
        self.calls.lock().unwrap().clear();
    }

    pub(crate) fn count(&self, operation: &str) -> usize {
        self.calls().iter().filter(|call| call.is(operation)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, upstream: u16, rule: Rule, calls: Arc<Mutex<Vec<Call>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (rule, calls) = (Arc::clone(&rule), Arc::clone(&calls));
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, upstream, &rule, &calls));
            // A connection that was cut on purpose ends with an error.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The connection is to be cut.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

async fn answer(
    request: Request<Incoming>,
    upstream: u16,
    rule: &Rule,
    calls: &Arc<Mutex<Vec<Call>>>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let service = head
        .headers
        .get("authorization")
        .and_then(|header| header.to_str().ok())
        .and_then(|header| header.split("/aws4_request").next()?.rsplit('/').next())
        .unwrap_or("unknown")
        .to_owned();
    let target = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let form = if matches!(service.as_str(), "ec2" | "sts") || target == "/snapshots" {
        String::from_utf8_lossy(&body).into_owned()
    } else {
        String::new()
    };
    let operation = format!("{service} {}", operation(&service, &head.method, &target, &form));
    let call = {
        let mut calls = calls.lock().unwrap();
        let number = calls.iter().filter(|call| call.operation == operation).count();
        let call = Call { operation, number, at: calls.len(), target, sent: body.len(), form };
        calls.push(call.clone());
        call
    };
    let forward = || forward_to(upstream, &head, body.clone());
    match rule(&call) {
        None => forward().await,
        Some(Fault::Refuse(status, code, message)) => Ok(refusal(&service, status, code, message)),
        Some(Fault::CutBefore) => Err(Cut),
        Some(Fault::CutAfter) => {
            forward().await?;
            Err(Cut)
        }
        Some(Fault::Without(header)) => {
            let mut head = head;
            head.headers.remove(header);
            forward_to(upstream, &head, body).await
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Instead(body)) => Ok(Response::new(Full::new(Bytes::from_static(body.as_bytes())))),
        Some(Fault::InsteadOfTask(body)) => {
            let id = call
                .form
                .split('&')
                .find_map(|pair| pair.strip_prefix("ImportTaskId.1="))
                .unwrap_or_default();
            Ok(Response::new(Full::new(Bytes::from(body.replace('@', id)))))
        }
        Some(Fault::Before(act)) => {
            act();
            Err(Cut)
        }
        Some(Fault::After(act)) => {
            forward().await?;
            act();
            Err(Cut)
        }
    }
}

/// Settings of buckets: the word in the query, and the call's name without its verb.
const SETTINGS: [(&str, &str); 7] = [
    ("encryption", "BucketEncryption"),
    ("lifecycle", "BucketLifecycleConfiguration"),
    ("ownershipControls", "BucketOwnershipControls"),
    ("policy", "BucketPolicy"),
    ("publicAccessBlock", "PublicAccessBlock"),
    ("tagging", "BucketTagging"),
    ("versioning", "BucketVersioning"),
];

fn operation(service: &str, method: &Method, target: &str, form: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let has = |key: &str| query.split('&').any(|pair| pair.split('=').next() == Some(key));
    match service {
        "ec2" | "sts" => {
            form.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or("unknown").to_owned()
        }
        "ebs" if path.contains("/blocks/") => "PutSnapshotBlock".to_owned(),
        "ebs" if path.contains("/completion/") => "CompleteSnapshot".to_owned(),
        "ebs" => "StartSnapshot".to_owned(),
        "s3" => {
            let in_bucket = path.trim_matches('/').contains('/');
            if let Some((_, setting)) = SETTINGS.iter().find(|(word, _)| !in_bucket && has(word)) {
                return format!("{}{setting}", if *method == Method::GET { "Get" } else { "Put" });
            }
            match (method.as_str(), in_bucket) {
                ("POST", _) if has("uploads") => "CreateMultipartUpload",
                ("POST", _) => "CompleteMultipartUpload",
                ("PUT", true) if has("partNumber") => "UploadPart",
                ("PUT", true) => "PutObject",
                ("PUT", false) => "CreateBucket",
                ("GET", _) if has("uploads") => "ListMultipartUploads",
                ("GET", _) if has("uploadId") => "ListParts",
                ("GET", true) => "GetObject",
                ("GET", false) => "ListObjects",
                ("HEAD", true) => "HeadObject",
                ("HEAD", false) => "HeadBucket",
                ("DELETE", _) => "DeleteObject",
                _ => "unknown",
            }
            .to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

/// An error in the form of the service.
fn refusal(service: &str, status: u16, code: &str, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    let body = match service {
        "ec2" => format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
             <RequestID>r</RequestID></Response>"
        ),
        "sts" => format!(
            "<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        ),
        "s3" => format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"),
        _ => {
            response = response.header("x-amzn-errortype", code);
            format!("{{\"Message\":\"{message}\"}}")
        }
    };
    response.body(Full::new(Bytes::from(body))).unwrap()
}

async fn forward_to(
    upstream: u16,
    head: &hyper::http::request::Parts,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, Cut> {
    let stream = TcpStream::connect(("127.0.0.1", upstream)).await.map_err(|_| Cut)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Cut)?;
    tokio::spawn(async move {
        // Moto is asked once per connection; how it ends says nothing.
        let _ = connection.await;
    });
    let mut request = Request::builder().method(head.method.clone()).uri(head.uri.clone());
    for (name, value) in &head.headers {
        request = request.header(name, value);
    }
    let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.map_err(|_| Cut)?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    Ok(Response::from_parts(head, Full::new(body)))
}
