"""Starts moto for clawd's integration tests and raises its fidelity.

    python launcher.py [PORT]        (stdin must be a pipe that the test holds open; a free port when none is given)

Prints exactly one line, `ready PORT`, once 127.0.0.1:PORT accepts connections, and nothing else; exits as soon as
stdin ends, so it cannot outlive a test that was killed. A request that fails inside moto is answered with 501, which
the SDKs do not retry, and the end of the traceback as message: NotImplemented where moto lacks the call, MotoFailure
otherwise.

Why not `moto_server`: moto 5.2.5 lacks calls that clawd needs, accepts what AWS refuses (wrong checksums, duplicate
names, reused tokens) and settles every state at once, so that a client which forgets to poll passes. One module here
mends one service and says which behaviour it adds. What stays different from AWS: signatures are not checked, and
snapshot blocks are kept as checksums only, because disk images are large.
"""

import sys

sys.dont_write_bytecode = True  # the tree under test stays clean

import io
import json
import os
import threading
import traceback
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape

import moto.backends
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

import images
import import_tasks
import launch_templates
import s3_buckets
import s3_uploads
import snapshots
import volumes

BODILESS = {204, 304}

# moto's backends are plain dictionaries without locks. One request at a time makes check-then-write atomic, as AWS is;
# bodies are read and answers are written outside it.
ONE_REQUEST = threading.Lock()

Headers = list[tuple[str, str]]


class KeepAliveHandler(MotoRequestHandler):
    """Werkzeug's handler closes every connection, because it cannot drain a body that the application left unread.
    This one reads each body first and knows each answer's length, so connections stay open for thousands of blocks."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = io.DEFAULT_BUFFER_SIZE  # head and body leave in one segment

    def run_wsgi(self) -> None:
        self.environ = environ = self.make_environ()
        body = self.read_body(environ)
        environ |= {"wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True, "CONTENT_LENGTH": str(len(body))}
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        self.answer(*call(self.server.app, environ))

    def read_body(self, environ: dict[str, Any]) -> bytes:
        if environ.get("wsgi.input_terminated"):  # chunked: werkzeug's stream ends by itself
            return environ["wsgi.input"].read()
        return self.rfile.read(int(environ.get("CONTENT_LENGTH") or 0))

    def answer(self, status: str, headers: Headers, body: bytes) -> None:
        code, _, reason = status.partition(" ")
        is_head = self.command == "HEAD"
        self.send_response(int(code), reason)
        for name, value in headers:
            if is_head or name.lower() != "content-length":
                self.send_header(name, value)
        if not is_head and int(code) not in BODILESS:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not is_head and int(code) not in BODILESS:
            self.wfile.write(body)

    def handle_expect_100(self) -> bool:
        proceed = super().handle_expect_100()
        self.wfile.flush()  # the client waits for this before it sends the body
        return proceed

    def log(self, *_: Any) -> None:
        """Silent: what went wrong is in the answer."""

    log_request = log_error = log_message = log


def call(app: Any, environ: dict[str, Any]) -> tuple[str, Headers, bytes]:
    """One WSGI call, its answer collected."""
    head: list[Any] = []

    def start_response(status: str, headers: Headers, _exc_info: Any = None) -> None:
        head[:] = [status, headers]

    try:
        with ONE_REQUEST:
            chunks: Iterable[bytes] = app(environ, start_response)
            body = b"".join(chunks)
            if hasattr(chunks, "close"):
                chunks.close()
        return head[0], head[1], body
    except NotImplementedError:
        return failure(environ, "NotImplemented")
    except Exception:
        return failure(environ, "MotoFailure")


def failure(environ: dict[str, Any], code: str) -> tuple[str, Headers, bytes]:
    """The exception at hand, in the form in which the service's clients read errors."""
    status = "501 Not Implemented"
    service = environ.get("HTTP_AUTHORIZATION", "").partition("/aws4_request")[0].rpartition("/")[2]
    message = traceback.format_exc(limit=-2, chain=False)
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    if service == "s3":
        return status, [("Content-Type", "application/xml")], error.encode()
    if service == "ec2":
        return status, [("Content-Type", "text/xml")], f"<Response><Errors>{error}</Errors></Response>".encode()
    body = json.dumps({"__type": code, "message": message})
    return status, [("Content-Type", "application/json"), ("x-amzn-ErrorType", code)], body.encode()


def list_modules_once() -> None:
    # moto reads its package's directories again for every request, which is more than a third of a block's time.
    modules = list(moto.backends.list_of_moto_modules())
    moto.backends.list_of_moto_modules = lambda: modules


def exit_at_end_of_stdin() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def be_silent() -> None:
    """moto prints and warns in places; the test's own output must stay readable."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def main() -> None:
    threading.Thread(target=exit_at_end_of_stdin, daemon=True).start()
    for module in (import_tasks, snapshots, images, volumes, launch_templates, s3_buckets, s3_uploads):
        module.install()
    list_modules_once()
    app = DomainDispatcherApplication(create_backend_app)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=KeepAliveHandler)
    print(f"ready {server.server_port}", flush=True)
    be_silent()
    server.serve_forever()


if __name__ == "__main__":
    main()
