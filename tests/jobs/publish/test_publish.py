"""`jobs.publish` as a copy: what is sent, in which order, what is refused, and what a second run does."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from support.object_store import SECRET, ObjectStore, files_in

from capillary_async import InvalidRequestError, jobs
from capillary_async.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def files_of(export: Path) -> dict[str, bytes]:
    """What a copy of an export has."""
    paths = [*(export / "shards").iterdir(), export / "manifest.json"]
    return {path.relative_to(export).as_posix(): path.read_bytes() for path in paths}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published(folder: Path, url: str, *options: Any, **named: Any) -> jobs.PublishResult:
    return asyncio.run(jobs.publish(folder, url, *options, **named))


def refused(folder: Path, url: str, **named: Any) -> str:
    with pytest.raises(jobs.JobError) as caught:
        published(folder, url, **named)
    return str(caught.value)


def test_a_copy_on_a_disk_is_a_whole_export(exports: Path, tmp_path: Path) -> None:
    """Blanks and letters beyond ASCII in the URL; the copy verifies; progress comes per file."""
    seen: list[jobs.PublishProgress] = []
    target = tmp_path / "höher 100% #1" / "a"
    result = published(exports / "first", target.as_uri(), on_progress=seen.append)
    assert contents(target) == files_of(exports / "first")
    assert (result.files, result.sent, result.already_there, result.version) == (6, 6, False, None)
    assert result.bytes_sent == sum(map(len, contents(target).values()))
    assert result.digest == hashlib.sha256((target / "manifest.json").read_bytes()).hexdigest()
    assert [each.done for each in seen] == [1, 2, 3, 4, 5]
    assert asyncio.run(jobs.verify(target)).faults == ()
    assert "published" in result._repr_html_()
    assert len(repr(result)) < 500


def test_the_same_again_sends_nothing(exports: Path, tmp_path: Path) -> None:
    """Unless a file is gone or short: that one is sent."""
    target = tmp_path / "a"
    published(exports / "first", target.as_uri())
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    again = published(exports / "first", f"{target.as_uri()}/")
    assert (again.already_there, again.sent, again.files) == (True, 0, 6)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
    (target / "shards" / "part-00000001.parquet").write_bytes(b"torn")
    (target / "shards" / "part-00000002.parquet").unlink()
    assert published(exports / "first", target.as_uri()).sent == 2
    assert contents(target) == files_of(exports / "first")


def test_another_export_is_refused_by_both_names(exports: Path, tmp_path: Path) -> None:
    """By their digests; and so is a manifest of something else."""
    target = tmp_path / "a"
    published(exports / "first", target.as_uri())
    text = refused(exports / "later", target.as_uri())
    assert all(hashlib.sha256((exports / name / "manifest.json").read_bytes()).hexdigest()[:16] in text
               for name in ("first", "later"))  # fmt: skip
    assert contents(target) == files_of(exports / "first")
    (target / "manifest.json").write_text("{}")
    assert "no manifest of an export" in refused(exports / "later", target.as_uri())


def test_files_that_are_not_ours_are_refused(exports: Path, tmp_path: Path) -> None:
    """A reader of `shards` would count them; and those of ours with other bytes are not written over."""
    (tmp_path / "a" / "shards").mkdir(parents=True)
    other = tmp_path / "a" / "shards" / "mine.parquet"
    other.write_bytes(b"x")
    assert "mine.parquet is no file of this export" in refused(exports / "first", (tmp_path / "a").as_uri())
    other.rename(other.with_name("part-00000000.parquet"))
    assert "is there with other bytes than" in refused(exports / "first", (tmp_path / "a").as_uri())
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["shards", "part-00000000.parquet"]
    other.with_name("part-00000000.parquet").unlink()
    shutil.copy(exports / "first" / "shards" / "part-00000001.parquet", tmp_path / "a" / "shards")
    assert published(exports / "first", (tmp_path / "a").as_uri()).sent == 5  # a copy by another tool is taken


def test_incomplete_and_damaged_exports_are_refused(exports: Path, tmp_path: Path) -> None:
    """With what to do, and nothing is sent."""
    url = (tmp_path / "target").as_uri()
    assert "1 customer failed" in refused(exports / "failed", url)
    assert "is no folder" in refused(tmp_path / "nowhere", url)
    (tmp_path / "empty").mkdir()
    assert "the export has not finished" in refused(tmp_path / "empty", url)
    shutil.copytree(exports / "first", tmp_path / "damaged")
    part = tmp_path / "damaged" / "shards" / "part-00000003.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    text = refused(tmp_path / "damaged", url)
    assert "part-00000003.parquet" in text
    assert "nothing was sent" in text
    assert "--paranoid" in text
    part.unlink()
    assert "part-00000003.parquet" in refused(tmp_path / "damaged", url)
    assert not (tmp_path / "target").exists()


def test_json_lines_are_copied(exports: Path, tmp_path: Path) -> None:
    """A file that was cut off is sent again."""
    target = tmp_path / "lines" / "shards"
    target.mkdir(parents=True)
    whole = (exports / "lines" / "shards" / "part-00000001.jsonl").read_bytes()
    (target / "part-00000001.jsonl").write_bytes(whole[:-7])  # cut off while it was written
    published(exports / "lines", (tmp_path / "lines").as_uri())
    assert contents(tmp_path / "lines") == files_of(exports / "lines")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("points", "is a path"), ("/points", "is a path"), ("", "is a path"), ("C:/points", "is a path"),
        ("dbfs:/points", "is a path"), ("http://bucket/points", "scheme http"), ("s3a://b/points", "write s3://"),
        ("file:points", "has no //"), ("file://points", "names a host"), ("file://points/x", "names a host"),
        ("file:///", "names no folder"), ("file:///a/../b", ".. in its path"), ("file:///a?x", "a query"),
        ("file:///a%00b", "control character"), ("s3://bucket", "names no folder"), ("s3://bucket/", "names no folder"),
        ("s3:///points", "names no bucket"), ("s3://b//points", "an empty part"), ("s3://b/a\nb", "control character"),
        ("s3://KEY:S3cret@b/points", "has credentials"), ("s3://b/x?secret_key=S3cret", "a query"),
        ("gs://user:S3cret@b/x", "has credentials"), ("abfss://c:S3cret@a.dfs.core.windows.net/x", "has credentials"),
        ("abfss://container/points", "no container and account"),
    ],
)  # fmt: skip
def test_urls_that_are_refused(url: str, why: str, exports: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Before anything is read, without the secret, and the command ends with 1."""
    with pytest.raises(InvalidRequestError, match=re.escape(why)) as caught:
        published(exports / "first", url)
    assert caught.value.argument == "url"
    assert "S3cret" not in str(caught.value)
    assert main(["publish", str(exports / "first"), url]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "S3cret" not in err


BAD_ENDPOINTS = ("127.0.0.1:9000", "ftp://h", "http://", "http://u:S3cret@h", "http://h/p", "http://h:99999", "")


def test_other_arguments_that_are_refused(exports: Path, tmp_path: Path) -> None:
    """A URL for the folder, other tables, an endpoint that is none or has a password."""
    url = (tmp_path / "a").as_uri()
    assert "is a URL" in refused("s3://bucket/points", url)  # type: ignore[arg-type]
    for folder, given, named in [
        (exports / "first", url, {"table": "iceberg"}),
        (exports / "first", url, {"endpoint": "http://127.0.0.1"}),
        *((exports / "first", "s3://b/x", {"endpoint": each}) for each in BAD_ENDPOINTS),
        ([], url, {}),
        (7, url, {}),
        (exports / "first", None, {}),
        (exports / "first", b"s3://b/x", {}),
        ([exports / "first", exports / "later"], url, {}),
    ]:  # fmt: skip
        with pytest.raises(InvalidRequestError) as caught:
            published(folder, given, **named)  # type: ignore[arg-type]
        assert "S3cret" not in str(caught.value)


def test_the_command(exports: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url = (tmp_path / "a").as_uri()
    assert main(["publish", str(exports / "first"), url]) == 0
    out, err = capfd.readouterr()
    assert re.match(
        rf"published {re.escape(url)} \(export, \d+ records, SHA-256 [0-9a-f]{{16}}\): 6 of 6 files sent", out
    )
    assert "checked: size and SHA-256 of each file" in out
    assert err == ""
    assert main(["publish", str(exports / "first"), url]) == 0
    assert "is already there; nothing was sent" in capfd.readouterr().out
    assert main(["publish", str(exports / "first"), url, "--quiet"]) == 0
    assert main(["publish", str(exports / "later"), url, "--quiet"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("capillary-async: another export is at ")


def test_a_target_in_its_source(exports: Path, tmp_path: Path) -> None:
    """By a link too, and for tables; at the export itself there is nothing to do."""
    source = tmp_path / "a"
    shutil.copytree(exports / "first", source)
    (tmp_path / "link").symlink_to(source)
    before = contents(source)
    inside = [(source / "pub", None), (source / "shards" / "x", None), (tmp_path / "link" / "x" / "y", None)]
    for target, table in [*inside, (source, "delta"), (source / "t", "delta")]:
        with pytest.raises(InvalidRequestError, match="url takes a folder outside the export"):
            published(source, target.as_uri(), table)
    assert published(source, source.as_uri()).already_there
    assert contents(source) == before
    assert published(source, (tmp_path / "a2").as_uri()).sent == 6


def test_a_shard_is_copied_by_itself(shards: Path, tmp_path: Path) -> None:
    """It is a whole export of its ids; the folder of all shards is no export."""
    published(shards / "shard-1-of-3", (tmp_path / "a").as_uri())
    assert contents(tmp_path / "a") == files_of(shards / "shard-1-of-3")
    with pytest.raises(InvalidRequestError, match="publish each at its own URL"):
        published(shards, (tmp_path / "b").as_uri())


# -- S3


def test_a_copy_in_s3(store: ObjectStore, exports: Path) -> None:
    """The claim is the first file, the manifest the last; the bytes are the export's, each file is one request."""
    result = published(exports / "first", "s3://lake/tägliche punkte/2026-06-01")
    assert files_in(store, "lake/tägliche punkte/2026-06-01") == files_of(exports / "first")
    made = [line for line in store.writes if line.startswith("PUT")]
    assert made == store.writes
    files = [line for line in made if not line.endswith("/")]  # pyarrow writes the folder again after a removal
    assert "/_publishing-" in files[0]
    assert files[-1].endswith("/manifest.json")
    assert result.sent == 6
    store.writes.clear()
    assert published(exports / "first", "s3://lake/tägliche punkte/2026-06-01", endpoint=store.endpoint).already_there
    assert store.writes == []


def test_a_file_that_is_there_is_not_sent_again(store: ObjectStore, exports: Path) -> None:
    """Credentials expire in the middle; the next run sends the rest, and no manifest is there before."""
    store.writes_left = 4  # the claim, and three of five shards
    text = refused(exports / "first", "s3://lake/expired")
    assert "the credentials have expired: renew them" in text
    assert "give the same command again" in text
    assert SECRET not in text
    assert "manifest.json" not in files_in(store, "lake/expired")
    store.writes_left = None
    sent = published(exports / "first", "s3://lake/expired").sent
    assert sent == 3
    assert files_in(store, "lake/expired") == files_of(exports / "first")


def test_a_bucket_that_does_not_exist(store: ObjectStore, exports: Path) -> None:
    text = refused(exports / "first", "s3://no-such-bucket/points")
    assert "the bucket does not exist: create it" in text
    assert SECRET not in text


def test_a_server_that_does_not_answer(store: ObjectStore, exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with what to do, from the command too."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    text = refused(exports / "first", "s3://lake/points", endpoint="http://127.0.0.1:9")
    assert "cannot read s3://lake/points/manifest.json" in text


def test_bytes_that_come_back_otherwise(store: ObjectStore, exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that keeps something else than what was sent is found; there is no manifest then."""
    from capillary_async.jobs._publishing.store import Store

    put = Store.put

    def damaged(self: Store, name: str, source: Path) -> None:
        put(self, name, source)
        if name.endswith("3.parquet"):
            self.put_bytes(name, b"other")

    monkeypatch.setattr(Store, "put", damaged)
    assert "came back otherwise: 5 bytes" in refused(exports / "first", "s3://lake/damaged")
    assert "manifest.json" not in files_in(store, "lake/damaged")
