from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.format.manifest import read_manifest
from df_data.reading import Batch, ShardReader
from df_data.reading import source as sources
from df_data.reading.cache import ShardCache
from df_data.reading.source import file_url, is_remote, open_pieces
from df_models.errors import UserError

CLIPS = 24
TENSORS = [field.name for field in fields(Batch) if field.name not in ("keys", "text")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_split: Callable[..., object]) -> Path:
    root = tmp_path_factory.mktemp("remote")
    make_split(root, CLIPS, num_shards=4, frames=9, video=b"mp4" * 1000)
    return root / "train"


@pytest.fixture
def split(tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "train"))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_PAUSE", 0.0)


class Server:
    """A web server of one directory on 127.0.0.1 that counts what it gives."""

    def __init__(self, directory: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path.rpartition("/")[2])
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        handler = functools.partial(Handler, directory=str(directory))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(split: Path) -> Iterator[Server]:
    running = Server(split.parent)
    yield running
    running.close()


def reader(location: Path | str, **options: Any) -> ShardReader:
    return ShardReader(location, **{"batch_size": 3, "seed": 7, **options})


def assert_same(a: ShardReader, b: ShardReader, count: int = 20) -> None:
    for ours, theirs in zip(islice(a, count), islice(b, count), strict=True):
        assert ours.keys == theirs.keys
        assert all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in TENSORS)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_url_gives_what_the_directory_gives(
    split: Path, server: Server, tmp_path: Path, cached: bool, num_workers: int
) -> None:
    cache = {"cache_dir": tmp_path / "cache"} if cached else {}
    for url in (f"{server.url}/train", f"{server.url}/train/", f"{server.url}/train/{{}}?token=abc"):
        assert_same(reader(url, num_workers=num_workers, cache_bytes=0, **cache), reader(split))
    shards = [name for name in server.asked if ".tar" in name]
    assert len(shards) == (4 if cached else 3 * 4), "each shard is fetched once by a reader, or once for all"


@pytest.mark.parametrize("cached", [False, True])
def test_a_pipe_gives_what_the_directory_gives(split: Path, tmp_path: Path, cached: bool) -> None:
    cache = {"cache_dir": tmp_path / "cache"} if cached else {}
    assert_same(reader(f"pipe:cat {split}/{{}}", num_workers=1, **cache), reader(split))


def test_a_file_url_is_a_directory(split: Path) -> None:
    assert_same(reader(f"file://{split}"), reader(split))
    assert not is_remote(split) and not is_remote(str(split)) and is_remote("s3://b/train")


def test_buckets_and_resume_over_a_url(split: Path, server: Server) -> None:
    before = reader(f"{server.url}/train", buckets=(2, 3), num_workers=2)
    list(islice(before, 11))
    after = reader(split, buckets=(2, 3))
    after.load_state_dict(before.state_dict())
    assert_same(after, before, 10)


def test_what_is_not_there_is_told(split: Path, server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train/none/manifest\.json: cannot be fetched"):
        reader(f"{server.url}/train/none")
    with pytest.raises(UserError, match="cannot be fetched"):
        reader(f"pipe:cat {tmp_path}/none/{{}}")
    with pytest.raises(UserError, match=r"write \{\} there"):
        reader(f"pipe:cat {split}/manifest.json")
    with pytest.raises(UserError, match="damaged"):
        reader("pipe:echo no manifest for {}")
    (split / "shard-00001.tar").unlink()
    with pytest.raises(UserError, match=r"shard-00001\.tar: cannot be fetched"):
        list(islice(reader(f"{server.url}/train"), CLIPS))
    assert server.asked.count("shard-00001.tar") == 3, "tried three times"
    source = reader(f"{server.url}/train", on_error="skip", cache_dir=tmp_path / "cache")
    with pytest.warns(UserWarning, match=r"shard-00001\.tar.* left out"):
        batches = list(islice(source, CLIPS))
    entry = next(entry for entry in source.manifest.shards if entry.name == "shard-00001.tar")
    assert source.skipped == {entry.name: entry.count}
    assert len({key for batch in batches for key in batch.keys}) == CLIPS - entry.count


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("change", ["flip", "longer", "shorter"])
def test_what_is_not_the_manifest_s_is_refused(split: Path, tmp_path: Path, cached: bool, change: str) -> None:
    path = split / "shard-00002.tar"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes({"flip": bytes(data), "longer": path.read_bytes() * 2, "shorter": path.read_bytes()[:-1]}[change])
    cache = {"cache_dir": tmp_path / "cache"} if cached else {}
    with pytest.raises(UserError, match=r"shard-00002\.tar: what was fetched is not the shard"):
        list(islice(reader(f"pipe:cat {split}/{{}}", **cache), CLIPS))
    if cached:
        kept = [p.name for p in (tmp_path / "cache").glob("[!.]*")]
        entry = next(e for e in read_manifest(split).shards if e.name == path.name)
        assert f"{entry.sha256}.tar" not in kept
        assert not list((tmp_path / "cache").glob(".*.tmp*")), "no half file stays"


def test_a_fetch_that_fails_once_is_tried_again(split: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    whole = f"cat {split}/{{}}"
    part = f"touch {flag}-{{}}; head -c 700 {split}/{{}}; exit 1"
    command = f"pipe:if [ -e {flag}-{{}} ]; then {whole}; else {part}; fi"
    assert_same(reader(command, cache_dir=tmp_path / "cache"), reader(split))
    assert len(list(tmp_path.glob("flag-*"))) == 5


@pytest.mark.parametrize(
    "name", ["$(touch ran).tar", "a;touch ran;.tar", "`touch ran`.tar", "a b.tar", "-o.tar", "a\nb.tar"]
)
def test_names_from_a_manifest_never_reach_a_shell(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads((split / "manifest.json").read_text())
    document["shards"][0]["name"] = name
    (split / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="only letters"):
        list(islice(reader(f"pipe:cat {split}/{{}}", shuffle=False), 2))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UserError):
        file_url("pipe:cat {}", "../../etc/passwd")


# -------------------- the cache


def entries(split: Path) -> list[Any]:
    return list(read_manifest(split).shards)


def test_the_cache_keeps_its_bound_and_forgets_the_oldest(split: Path, tmp_path: Path) -> None:
    shards = entries(split)
    limit = sum(entry.bytes for entry in shards) - 1
    cache = ShardCache(tmp_path / "cache", limit)
    fetched: list[str] = []

    def get(entry: Any) -> Path:
        def fetch(file: Any) -> None:
            fetched.append(entry.name)
            file.write((split / entry.name).read_bytes())

        path = cache.path(entry, fetch)
        assert path.read_bytes() == (split / entry.name).read_bytes()
        assert sum(p.stat().st_size for p in cache.directory.glob("[!.]*.tar")) <= limit
        return path

    for entry in shards[:3]:
        os.utime(get(entry), (1, len(fetched)))
    os.utime(get(shards[0]), (1, 100))
    get(shards[3])
    assert fetched == [entry.name for entry in shards], "what is there is not fetched"
    get(shards[0])
    assert len(fetched) == 4, "used lately: kept"
    get(shards[1])
    assert fetched[4:] == [shards[1].name]
    with pytest.raises(UserError, match="raise cache_dir_bytes"):
        ShardCache(tmp_path / "small", 10).path(shards[0], lambda file: None)


def test_one_process_fetches_while_the_others_wait(split: Path, tmp_path: Path) -> None:
    entry, fetched = entries(split)[0], []

    def fetch(file: Any) -> None:
        fetched.append(1)
        time.sleep(0.2)
        file.write((split / entry.name).read_bytes())

    caches = [ShardCache(tmp_path / "cache", 1 << 30) for _ in range(4)]
    threads = [threading.Thread(target=cache.path, args=(entry, fetch)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1


def test_a_shard_that_another_process_removes_is_fetched_again(split: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    source = reader(f"pipe:cat {split}/{{}}", cache_dir=cache, cache_bytes=0)
    plain = reader(split)
    for ours, theirs in zip(islice(source, 24), islice(plain, 24), strict=True):
        assert ours.keys == theirs.keys
        for path in cache.glob("[!.]*.tar"):
            path.unlink()
    assert_same(reader(f"pipe:cat {split}/{{}}", cache_dir=cache), reader(split))


def test_a_damaged_file_in_the_cache_is_replaced(split: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    url = f"pipe:cat {split}/{{}}"
    list(islice(reader(url, cache_dir=cache), CLIPS))
    kept = sorted(cache.glob("[!.]*.tar"))
    assert len(kept) == 4
    kept[0].write_bytes(b"cut")
    data = bytearray(kept[1].read_bytes())
    data[2000] ^= 1
    kept[1].write_bytes(bytes(data))
    assert_same(reader(url, cache_dir=cache, verify=True), reader(split))


def test_bounds_that_would_fetch_again_and_again_are_refused(split: Path, tmp_path: Path) -> None:
    url = f"pipe:cat {split}/{{}}"
    with pytest.raises(UserError, match="raise stream_bytes or give a cache_dir"):
        reader(url, stream_bytes=1000)
    with pytest.raises(UserError, match="raise cache_dir_bytes"):
        reader(url, cache_dir=tmp_path / "cache", cache_dir_bytes=1000)
    assert_same(reader(split, stream_bytes=1000), reader(split))
    largest = max(entry.bytes for entry in entries(split))
    assert_same(reader(url, stream_bytes=largest, shuffle=False), reader(split, shuffle=False))


def why(url: str) -> str:
    with pytest.raises(UserError) as told:
        list(open_pieces(url))
    return str(told.value).removeprefix(f"{url}: ")


def test_what_failed_is_told_in_words(server: Server) -> None:
    hint = "check the address and the files there"
    gone = why(f"{server.url}/none.tar")
    assert gone == f"cannot be fetched (curl ended with code 22: not found or no access); {hint}"
    assert why("pipe:exit 5") == f"cannot be fetched (the command ended with code 5); {hint}"
    missing = "the command ended with code 127: a program in it is not installed"
    assert why("pipe:no-such-program 2>/dev/null") == f"cannot be fetched ({missing}); {hint}"
    assert why("s3://b/train/x.tar") == (
        "nothing here fetches s3:// addresses; name a command that does, with {} for the file's name: "
        "'pipe:aws s3 cp s3://bucket/train/{} -'"
    )


def test_a_missing_program_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="the program curl is not installed"):
        list(open_pieces("http://127.0.0.1:9/x"))
