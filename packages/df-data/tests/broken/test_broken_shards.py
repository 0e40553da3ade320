"""Shards with tricks in their headers: no reader writes, reads elsewhere, crashes, or allocates what a header asks."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from df_data.check.validate import check_dataset
from df_data.format.manifest import Manifest
from df_data.format.shards import iter_shard
from df_data.reading import ShardReader
from df_models.errors import UserError

KEY = "train-0000"
END = bytes(1024)
HUGE = 1 << 40
BOMB_MIB = 32
MOST_MIB = 16


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_split: Callable[..., Manifest]) -> Path:
    root = tmp_path_factory.mktemp("whole")
    make_split(root, 4, num_shards=1)
    return root


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytearray:
    """A member's header block; ``size`` may be any."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = struct.pack(">BxxxQ", 0x80, size) if size >= 8**11 else f"{size:011o}\0".encode()
    return sealed(block)


def sealed(block: bytearray) -> bytearray:
    """A header block with its checksum made right."""
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return block


def pax(records: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header that overrides what the next member's says."""
    lines = b""
    for name, value in records.items():
        body = f" {name}={value}\n".encode()
        length = len(body)
        while length != len(str(length)) + len(body):
            length = len(str(length)) + len(body)
        lines += str(length).encode() + body
    return bytes(header("pax", len(lines), kind)) + lines + bytes(-len(lines) % 512)


def member(name: str, data: bytes) -> bytes:
    return bytes(header(name, len(data))) + data + bytes(-len(data) % 512)


def bad_checksum() -> bytes:
    block = header(f"{KEY}.json", 2)
    block[148] ^= 1
    return bytes(block) + bytes(512)


def negative_size() -> bytes:
    block = header(f"{KEY}.json", 2)
    block[124:136] = b"\xff" * 12
    return bytes(sealed(block)) + bytes(512)


TRICKS: dict[str, Callable[[], bytes]] = {
    "a size of a terabyte": lambda: bytes(header(f"{KEY}.json", HUGE)) + bytes(512),
    "a size of eight exabytes": lambda: bytes(header(f"{KEY}.json", (1 << 63) - 1)) + bytes(512),
    "a negative size": negative_size,
    "a wrong checksum": bad_checksum,
    "pax path outside": lambda: pax({"path": "../../evil.json"}) + member(f"{KEY}.json", b"{}"),
    "pax absolute path": lambda: pax({"path": "/nowhere/evil.json"}) + member(f"{KEY}.json", b"{}"),
    "pax size": lambda: pax({"size": str(HUGE)}) + member(f"{KEY}.json", b"{}"),
    "pax negative size": lambda: pax({"size": "-512"}) + member(f"{KEY}.json", b"{}"),
    "pax size of no number": lambda: pax({"size": "many"}) + member(f"{KEY}.json", b"{}"),
    "pax link": lambda: pax({"linkpath": "/etc/passwd"}) + bytes(header(f"{KEY}.json", 0, tarfile.LNKTYPE)),
    "pax for all": lambda: pax({"path": "../evil.json"}, tarfile.XGLTYPE) + member(f"{KEY}.json", b"{}"),
    "pax without end": lambda: bytes(header("pax", HUGE, tarfile.XHDTYPE)) + b"99999999999 path=x\n".ljust(512, b"\0"),
    "pax of nonsense": lambda: bytes(header("pax", 512, tarfile.XHDTYPE)) + b"\xff" * 512 + member("k.json", b"{}"),
    "gnu long name outside": lambda: member_of_kind(tarfile.GNUTYPE_LONGNAME, b"../../evil.json\0"),
    "gnu long name of a terabyte": lambda: bytes(header("x", HUGE, tarfile.GNUTYPE_LONGNAME)) + bytes(512),
    "gnu sparse": lambda: bytes(header(f"{KEY}.json", 512, tarfile.GNUTYPE_SPARSE)) + bytes(512),
    "pax sparse": lambda: pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "../evil.json",
                               "GNU.sparse.realsize": str(HUGE)}) + member(f"{KEY}.json", b"1\n0\n0\n"),
    "pax sparse map": lambda: pax({"GNU.sparse.map": "0,1,x", "GNU.sparse.size": "9"}) + member(f"{KEY}.json", b"{}"),
    "a hard link": lambda: bytes(header(f"{KEY}.json", 0, tarfile.LNKTYPE, "/etc/passwd")),
    "a symbolic link": lambda: bytes(header(f"{KEY}.json", 0, tarfile.SYMTYPE, "../../etc/passwd")),
    "a block device": lambda: bytes(header(f"{KEY}.json", 0, tarfile.BLKTYPE)),
    "a name with a null": lambda: member("train-0000.json\0/../../evil", b"{}"),
    "deep json": lambda: member(f"{KEY}.json", b"[" * 100_000) + member(f"{KEY}.safetensors", b"\0" * 16),
    "tensors with a header of exabytes": lambda: sample_of(struct.pack("<Q", (1 << 63) - 1) + bytes(64)),
    "tensors of a terabyte": lambda: sample_of(tensors("[1099511627776]", HUGE * 4)),
    "tensors of negative places": lambda: sample_of(tensors("[4]", -16)),
}  # fmt: skip


def member_of_kind(kind: bytes, data: bytes) -> bytes:
    return bytes(header("x", len(data), kind)) + data + bytes(-len(data) % 512) + member(f"{KEY}.json", b"{}")


def tensors(shape: str, end: int) -> bytes:
    text = f'{{"video_latent":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}'.encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


def sample_of(values: bytes) -> bytes:
    meta = {
        "key": KEY, "source": "s", "licence": "l", "identity": "i", "split": "train",
        "num_frames": 5, "height": 16, "width": 16,
    }  # fmt: skip
    return member(f"{KEY}.json", json.dumps(meta).encode()) + member(f"{KEY}.safetensors", values)


def planted(whole: Path, target: Path, data: bytes) -> Path:
    """A dataset whose only shard is this; its manifest agrees, so that nothing but the reader can refuse it."""
    root = Path(shutil.copytree(whole, target))
    (root / "train" / "shard-00000.tar").write_bytes(data)
    path = root / "train" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "count": 1}
    path.write_text(json.dumps(manifest))
    return root


def files_of(place: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_size for path in place.rglob("*")}


def refuse(root: Path, place: Path) -> str:
    """Read a hostile shard in every way; return what `validate` says of it."""
    before = files_of(place)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"shard-00000\.tar"):
            list(iter_shard(root / "train" / "shard-00000.tar"))
        with pytest.raises(UserError, match=r"shard-00000\.tar") as stopped:
            list(ShardReader(root / "train", batch_size=1, seed=0, loop=False, on_error="stop"))
        problems = check_dataset(root / "train").problems
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(stopped.value)
    told = [line for line in problems if "shard-00000.tar" in line]
    assert told and all("\n" not in line for line in problems)
    assert files_of(place) == before and peak < MOST_MIB << 20
    return " ".join(told)


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_in_headers_are_refused(whole: Path, tmp_path: Path, trick: str) -> None:
    refuse(planted(whole, tmp_path / "set", TRICKS[trick]() + END), tmp_path)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_shard_is_not_unpacked(whole: Path, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """32 MB of zeros in some kB: whoever unpacks it, notices only then."""
    bomb = pack(member(f"{KEY}.json", bytes(BOMB_MIB << 20)) + END)
    assert "not a whole tar file" in refuse(planted(whole, tmp_path / "set", bomb), tmp_path)


def test_many_empty_members_take_little_memory(whole: Path, tmp_path: Path) -> None:
    """A key each, 2.5 MB of headers; the first without its tensors is refused."""
    data = b"".join(bytes(header(f"k{index:07d}.json", 0)) for index in range(5_000))
    refuse(planted(whole, tmp_path / "set", data + END), tmp_path)


@pytest.mark.parametrize("what", ["pipe", "folder", "link", "nowhere"])
def test_a_shard_that_is_no_file_is_told_and_not_waited_for(whole: Path, tmp_path: Path, what: str) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "set"))
    path = root / "train" / "shard-00000.tar"
    path.unlink()
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link": lambda: path.symlink_to("/dev/zero"),
        "nowhere": lambda: path.symlink_to("gone"),
    }[what]()
    with pytest.raises(UserError, match=r"shard-00000\.tar"):
        list(ShardReader(root / "train", batch_size=1, seed=0, loop=False, on_error="stop"))
    assert any("shard-00000.tar" in line for line in check_dataset(root / "train").problems)


def test_an_audio_shard_passes_these_checks(whole: Path) -> None:
    """What the others are made from is refused by none of them."""
    assert check_dataset(whole / "train").problems == ()
    assert len(list(iter_shard(whole / "train" / "shard-00000.tar"))) == 4
    with tarfile.open(fileobj=io.BytesIO(member("a.json", b"{}") + END)) as archive:
        assert archive.getnames() == ["a.json"]
