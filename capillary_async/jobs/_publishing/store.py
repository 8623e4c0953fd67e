"""A folder in an object store or on a disk, through pyarrow's file systems.

Invariant: credentials come from the store's own environment and its chain of providers, and no message has one; a file
on a disk gets its name when its bytes are durable. Used by all of `_publishing`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capillary_async._files.addresses import without_secrets
from capillary_async._files.durable import PartFile, make_folder
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.pyarrow_import import pa

if TYPE_CHECKING:
    from collections.abc import Generator

    from capillary_async.jobs._publishing.address import Destination

__all__ = ["AGAIN", "Store", "redacted", "s3_region"]

AGAIN = "what was sent stays: repair the cause and give the same command again, it goes on there"
_PIECE = 1 << 20
_SECRETS = re.compile(r"(?i)(?:secret|token|password|key|credential|sas|signature)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_RETRIES = timedelta(seconds=60)  # its default is 15 minutes
_SHORTEST = 6  # characters of a value that is hidden
_HINTS = {
    r"(?i)NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist|Bucket '.*' not found|ContainerNotFound": (
        "the bucket does not exist: create it, or correct the URL"
    ),
    r"(?i)expired": "the credentials have expired: renew them",
    r"(?i)ACCESS_DENIED|AccessDenied|forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|403": (
        "the credentials are missing, wrong or may not write there"
    ),
}


class Store:
    """The files below one folder, each by its name there, e.g. `shards/part-00000000.parquet`.

    Raises:
        JobError: This pyarrow has no file system of that kind, or it cannot be set up.
    """

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        with self._calling("connect to"):
            self._fs = _file_system(destination)

    def sizes(self, folder: str) -> dict[str, int]:
        """The size of each file below a folder, by its name; nothing if there is no such folder."""
        fs = _fs()
        with self._calling("list", folder):
            found = self._fs.get_file_info(fs.FileSelector(self._path(folder), recursive=True, allow_not_found=True))
        start = len(self.destination.root) + 1
        files: list[Any] = [each for each in found if each.type == fs.FileType.File]
        # Readers leave out hidden files too: here they are unfinished ones of a killed process.
        return {str(each.path)[start:]: int(each.size) for each in files if not each.base_name.startswith((".", "_"))}

    def names(self, prefix: str) -> list[str]:
        """The names of the files in the folder itself that begin so."""
        fs = _fs()
        with self._calling("list"):
            found = self._fs.get_file_info(fs.FileSelector(self.destination.root, allow_not_found=True))
        return sorted(str(each.base_name) for each in found if each.base_name.startswith(prefix))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._calling("remove", name), contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(self._path(name))

    def read(self, name: str) -> bytes | None:
        """The bytes of a small file; None if it is not there."""
        with self._calling("read", name):
            if self._fs.get_file_info(self._path(name)).type != _fs().FileType.File:
                return None
            with self._fs.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())

    def sha256(self, name: str) -> tuple[int, str]:
        """The size and the SHA-256 of a file, of the bytes that the store gives back."""
        digest, size = hashlib.sha256(), 0
        with self._calling("read", name), self._fs.open_input_stream(self._path(name), buffer_size=0) as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                size += len(piece)
        return size, digest.hexdigest()

    def put(self, name: str, source: Path) -> None:
        """Write a file; an object appears when it is whole."""
        with self._calling("write", name), source.open("rb") as file:
            if self.destination.scheme == "file":
                _put_durably(Path(self._path(name)), file)
                return
            with self._fs.open_output_stream(self._path(name)) as stream:
                shutil.copyfileobj(file, stream, _PIECE)

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write a small file."""
        with self._calling("write", name):
            if self.destination.scheme == "file":
                path = Path(self._path(name))
                make_folder(path.parent)
                with PartFile(path) as part:
                    os.write(part.descriptor, data)
                    part.publish()
                return
            with self._fs.open_output_stream(self._path(name)) as stream:
                stream.write(data)

    def _path(self, name: str) -> str:
        return f"{self.destination.root}/{name}"

    @contextlib.contextmanager
    def _calling(self, doing: str, name: str = "") -> Generator[None]:
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self.failed(doing, name, error) from None

    def failed(self, doing: str, name: str, error: BaseException) -> JobError:
        """The error for a failed call of the store."""
        text = redacted(_COLOURS.sub("", str(error)))
        hint = next((hint for pattern, hint in _HINTS.items() if re.search(pattern, text)), "")
        where = f"{self.destination}/{name}" if name else str(self.destination)
        said = " ".join(text.split())[:400]
        return JobError(
            f"cannot {doing} {where}: {f'{hint}; ' if hint else ''}{AGAIN}. The store says: {said}", path=where
        )


def redacted(text: str) -> str:
    """The text without the values of environment variables that have secrets, and without those of URLs."""
    for name, value in os.environ.items():
        if _SECRETS.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, "***")
    return without_secrets(text)


def _put_durably(target: Path, file: Any) -> None:
    make_folder(target.parent)
    with PartFile(target) as part:
        with os.fdopen(os.dup(part.descriptor), "wb") as out:
            shutil.copyfileobj(file, out, _PIECE)
        part.publish()


# -- the file systems


def _fs() -> Any:
    return importlib.import_module("pyarrow.fs")


def _file_system(destination: Destination) -> Any:
    name = {"s3": "S3FileSystem", "gs": "GcsFileSystem", "abfss": "AzureFileSystem", "file": "LocalFileSystem"}
    kind = getattr(_fs(), name[destination.scheme], None)
    if kind is None:
        raise JobError(f"the installed pyarrow has no {name[destination.scheme]}: install it from PyPI or conda-forge")
    options = _OPTIONS.get(destination.scheme)
    return kind(**options(destination)) if options else kind()


def _s3_options(destination: Destination) -> dict[str, Any]:
    # A small file is one request, where it would be the three of a multipart upload.
    options: dict[str, Any] = {"region": s3_region(destination), "allow_delayed_open": True}
    if destination.endpoint is not None:
        scheme, _, host = destination.endpoint.partition("://")
        options |= {"scheme": scheme, "endpoint_override": host}
    return {name: value for name, value in options.items() if value is not None}


def s3_region(destination: Destination) -> str | None:
    """The region that the environment names, or the bucket's own on AWS; None leaves it to the credential chain."""
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if named or destination.endpoint is not None:
        return named
    with contextlib.suppress(OSError):  # no such bucket, or it does not say: the first call has the reason
        return str(_fs().resolve_s3_region(destination.root.partition("/")[0]))
    return None


def _azure_options(destination: Destination) -> dict[str, Any]:
    account, domain = destination.account or ("", "")
    options = {"account_name": account, "dfs_storage_authority": f".{domain}"}
    options["blob_storage_authority"] = f".{domain.replace('dfs.', 'blob.', 1)}"
    key, sas = (os.environ.get(f"AZURE_STORAGE_{name}", "") for name in ("ACCOUNT_KEY", "SAS_TOKEN"))
    return options | ({"account_key": key} if key else {"sas_token": sas} if sas else {})


def _google_options(destination: Destination) -> dict[str, Any]:  # noqa: ARG001 - all are called alike
    return {"retry_time_limit": _RETRIES}


_OPTIONS = {"s3": _s3_options, "abfss": _azure_options, "gs": _google_options}
