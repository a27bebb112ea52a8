"""Shards over HTTP and S3: real servers on this machine, byte ranges, faults that pass, faults that stay, a cache."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from shard_sources import picture_set

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.shards import byte_ranges
from medvlm.data_recipes.shards.cache import ShardCache
from medvlm.data_recipes.shards.reader import ShardSet, is_shard_set
from medvlm.data_recipes.shards.shard import main
from medvlm.data_recipes.shards.stream import stream

pytest.importorskip("aiohttp", reason="the cloud extra is not installed")


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with byte ranges; fails the first ``failures`` requests for a tar."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(Path(self.translate_path(self.path)).stat().st_size))
        self.end_headers()

    def do_GET(self) -> None:
        server: Server = self.server  # type: ignore[assignment]
        name = self.path.rpartition("/")[2]
        span = self.headers.get("Range")
        server.asked[f"{name} {'range' if span else 'whole'}"] += 1
        path = Path(self.translate_path(self.path))
        if name.endswith(".tar") and server.failures > 0:
            server.failures -= 1
            self.send_error(503, "busy")
            return
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        if span and server.honour_ranges:
            first, last = (int(n) for n in span.removeprefix("bytes=").split("-"))
            part = data[first : last + 1]
            if not part:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        else:
            part = data
            self.send_response(200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    failures = 0
    honour_ranges = True
    asked: Counter[str]
    url: str


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """20 rows in 5 shards of about 24 kB."""
    folder = tmp_path_factory.mktemp("shards")
    source = picture_set(folder / "source", 20)
    assert main([str(source), "--out", str(folder / "set"), "--size", "image=40", "--rows-per-shard", "4"]) == 0
    return folder / "set"


@pytest.fixture
def server(built, tmp_path, monkeypatch) -> Iterator[Server]:
    shutil.copytree(built, tmp_path / "www" / "set")
    monkeypatch.setattr(byte_ranges, "FIRST_WAIT_S", 0.01)
    serving = Server(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path / "www")))
    serving.asked, serving.url = Counter(), f"http://127.0.0.1:{serving.server_port}/set"
    thread = threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()


def visuals(row: Sample | BadSample) -> list[float]:
    assert isinstance(row, Sample), row
    return [float(read(ref, Path("/")).pixels.sum()) for ref in row.visuals()]


def content(rows: ShardSet) -> list[tuple[str, list[float]]]:
    return [(row.sample_id, visuals(row)) for row in map(rows.row, range(len(rows)))]


def test_rows_over_http_are_byte_ranges(built, server):
    assert is_shard_set(server.url) and not is_shard_set(server.url + "/no")
    rows = ShardSet.open(server.url)
    assert rows.fingerprint == ShardSet.open(built).fingerprint
    assert content(rows) == content(ShardSet.open(built))
    assert not any(name.endswith(".tar whole") for name in server.asked)
    with pytest.raises(BadSample, match="not finished"):
        ShardSet.open(server.url + "/no")


def test_a_fault_that_passes_is_tried_again_and_one_that_stays_is_an_error(server):
    rows = ShardSet.open(server.url)
    wanted = visuals(rows.row(0))
    server.failures = byte_ranges.ATTEMPTS - 1
    assert visuals(rows.row(0)) == wanted
    server.failures = 1000
    with pytest.raises(ConnectionError, match=r"train-0000\d.tar: 5 tries failed"):
        rows.row(0)
    with pytest.raises(ConnectionError):
        list(stream(rows))
    server.failures = 0
    server.honour_ranges = False
    with pytest.raises(ConnectionError, match="byte ranges are needed"):
        rows.row(0)


def test_what_is_changed_or_missing_on_a_server_is_a_bad_row(server, tmp_path):
    rows = ShardSet.open(server.url)
    ref = rows.row(9).visuals()[0]
    path = tmp_path / "www" / "set" / "train-00002.tar"
    data = bytearray(path.read_bytes())
    data[ref.options["offset"] + 300] ^= 1
    path.write_bytes(data)
    (tmp_path / "www" / "set" / "train-00004.tar").unlink()
    with pytest.raises(BadSample, match="have changed since") as found:
        read(ref, Path("/"))
    assert found.value.where == f"{server.url}/train-00002.tar::{ref.options['member']}"
    bad = [row for _, row in stream(rows) if isinstance(row, BadSample)]
    assert len(bad) == 5 and sum("train-00004.tar" in one.where for one in bad) == 4
    assert isinstance(rows.row(16), BadSample)


def test_a_torn_shard_on_a_server_is_a_bad_row(server, tmp_path):
    path = tmp_path / "www" / "set" / "train-00000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    rows = ShardSet.open(server.url)
    torn = [row for row in map(rows.row, range(4)) if isinstance(row, BadSample)]
    assert torn and all("is torn" in one.reason for one in torn)


def test_stream_over_http_fetches_each_shard_once(built, server):
    rows = ShardSet.open(server.url)
    wanted = dict(content(ShardSet.open(built)))
    got = [(row.sample_id, visuals(row)) for _, row in stream(rows, seed=1, group=2)]
    assert dict(got) == wanted and len(got) == 20
    assert sum(server.asked[f"train-0000{n}.tar whole"] for n in range(5)) == 5
    assert not any(name.endswith(".tar range") for name in server.asked)


def test_a_cache_that_holds_the_set_is_asked_instead_of_the_server(built, server, tmp_path):
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=1 << 20)
    assert content(ShardSet.open(server.url, cache=cache)) == content(ShardSet.open(built))
    server.asked.clear()
    assert content(ShardSet.open(server.url, cache=cache)) == content(ShardSet.open(built))
    assert not any(".tar" in name for name in server.asked)


def test_a_cache_stays_within_its_limit_and_loses_the_least_recently_used(built, server, tmp_path):
    rows = ShardSet.open(server.url)
    sizes = [entry["bytes"] for entry in rows.shards]
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=sizes[0] * 2 + 100)
    rows = ShardSet.open(server.url, cache=cache)
    kept = rows.row(0)
    assert not list((tmp_path / "cache").glob("*.tar"))  # the set does not fit: rows by number are byte ranges
    for shard in (0, 1, 0, 2):
        assert rows.fetch(shard, cache) is not None
    held = {path.stem for path in cache.folder.glob("*.tar")}
    assert held == {rows.shards[0]["sha256"], rows.shards[2]["sha256"]}
    cached = rows.row(0)
    assert isinstance(cached, Sample) and cached.visuals()[0].path.startswith(str(cache.folder))
    for shard in (3, 4):
        rows.fetch(shard, cache)
    # The copy that this row names is gone; it is read from where the copy came from.
    assert not Path(cached.visuals()[0].path).exists()
    assert visuals(cached) == visuals(kept)
    seen = 0
    for _, row in stream(rows, group=1):
        visuals(row)
        seen += 1
        assert sum(path.stat().st_size for path in cache.folder.glob("*.tar")) <= cache.max_bytes
    assert seen == 20 and not list(cache.folder.glob("*.partial"))


def test_a_download_that_is_not_what_the_index_says_never_enters_the_cache(server, tmp_path):
    rows = ShardSet.open(server.url)
    path = tmp_path / "www" / "set" / "train-00001.tar"
    path.write_bytes(path.read_bytes()[:-600])
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=1 << 20)
    assert rows.fetch(1, cache) is None and not list(cache.folder.glob("*.tar"))
    entry = rows.shards[1]
    with pytest.raises(BadSample, match="SHA-256 is not"):
        cache.fetch(f"{server.url}/train-00001.tar", size=entry["bytes"], sha256=entry["sha256"])


@pytest.fixture
def bucket(monkeypatch) -> Iterator[str]:
    """The url of an empty bucket of a real object store on this machine."""
    pytest.importorskip("s3fs", reason="the cloud extra is not installed")
    moto = pytest.importorskip("moto.server", reason="moto[server], a local object store for tests, is not installed")
    serving = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    serving.start()
    _, port = serving.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("shards")
    yield "s3://shards/set"
    s3fs.S3FileSystem.clear_instance_cache()
    serving.stop()


def test_a_set_is_built_into_s3_goes_on_there_and_is_read_from_it(tmp_path, built, bucket):
    import s3fs

    source = built.parent / "source" / "train.jsonl"
    arguments = [str(source), "--out", bucket, "--size", "image=40", "--rows-per-shard", "4"]
    assert main(arguments) == 0
    store = s3fs.S3FileSystem()
    names = sorted(path.rpartition("/")[2] for path in store.ls("shards/set"))
    assert names == sorted(path.name for path in built.iterdir() if path.name != ".lock")
    for name in names:
        assert store.cat_file(f"shards/set/{name}") == (built / name).read_bytes(), name
    store.pipe_file("shards/set/train-00001.tar", b"torn")
    store.rm_file("shards/set/index.json")
    store.rm_file("shards/set/train-00003.index.json")
    store.invalidate_cache()
    assert not is_shard_set(bucket)
    kept = store.info("shards/set/train-00000.tar")["LastModified"]
    assert main(arguments) == 0
    store.invalidate_cache()
    assert store.info("shards/set/train-00000.tar")["LastModified"] == kept
    rows = ShardSet.open(bucket)
    assert content(rows) == content(ShardSet.open(built))
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=1 << 20)
    streamed = {row.sample_id: visuals(row) for _, row in stream(ShardSet.open(bucket, cache=cache))}
    assert streamed == dict(content(rows))
    store.rm_file("shards/set/train-00002.tar")
    store.invalidate_cache()
    gone = rows.row(8)
    assert isinstance(gone, BadSample) and gone.where.startswith("s3://shards/set/train-00002.tar")
