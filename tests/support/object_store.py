"""moto's S3 as a server on loopback, whose writes a test can let fail.

Invariant: credentials are those of the environment that `environment` gives; nothing is sent beyond loopback.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HOWTO = "publishing to S3 is not tested: pip install 'moto[server]'"
SECRET = "wJalrXUtnFEMI/K7MDENG"
_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


def required(module: str, reason: str) -> Any:
    """The module, or a skipped test; an error where `.ci/run` demands it."""
    if os.environ.get("CAPILLARY_STORES") == "required":
        return __import__(module)
    return pytest.importorskip(module, reason=reason)


class ObjectStore:
    """The server.

    Attributes:
        endpoint: Its URL.
        writes: PUT and POST requests so far, in order: method and path.
        writes_left: How many more writes succeed before the credentials expire; None for all.
    """

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.writes: list[str] = []
        self.writes_left: int | None = None
        self._lock = threading.Lock()

    def admits(self, environ: dict[str, Any]) -> bool:
        """Count a request; False if its credentials have expired."""
        if environ["REQUEST_METHOD"] not in ("PUT", "POST"):
            return True
        with self._lock:
            if self.writes_left == 0:
                return False
            self.writes_left = None if self.writes_left is None else self.writes_left - 1
            self.writes.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            return True

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextlib.contextmanager
def running() -> Iterator[ObjectStore]:
    """A server with the bucket `lake`."""
    required("moto", HOWTO)
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - its name there
            """Write nothing."""

    app = DomainDispatcherApplication(create_backend_app)

    def gate(environ: dict[str, Any], start_response: Any) -> Any:
        if store.admits(environ):
            return app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_EXPIRED)))])
        return [_EXPIRED]

    server = make_server("127.0.0.1", 0, gate, threaded=True, request_handler=Quiet)
    store = ObjectStore(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in store.environment.items():
                patch.setenv(name, value)
            file_system(store).create_dir("lake")
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def file_system(store: ObjectStore) -> Any:
    """The server as a file system of pyarrow."""
    from pyarrow import fs

    return fs.S3FileSystem(
        access_key="AKIAEXAMPLE",
        secret_key=SECRET,
        region="us-east-1",
        scheme="http",
        endpoint_override=store.endpoint.removeprefix("http://"),
        allow_bucket_creation=True,
    )


def files_in(store: ObjectStore, folder: str) -> dict[str, bytes]:
    """The bytes of each file below a folder, by its name there."""
    from pyarrow import fs

    system = file_system(store)
    found = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    files = [each.path for each in found if each.type == fs.FileType.File]
    return {path.removeprefix(f"{folder}/"): system.open_input_stream(path).read() for path in files}
