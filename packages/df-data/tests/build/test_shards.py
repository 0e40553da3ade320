from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from dying_builds import CLIPS
from dying_builds import build as build_small
from webdataset import WebDataset  # pyright: ignore[reportAttributeAccessIssue]

from df_data.check.validate import check_dataset
from df_data.format.manifest import read_manifest
from df_data.format.sample import EncoderRecord, Sample, from_members, to_members, validate_sample
from df_data.format.shards import SplitWriter, iter_samples, iter_shard, shard_of, tar_members
from df_models.errors import UserError

ENCODERS = {"video_vae": EncoderRecord(id="vae", sha256="v"), "audio": EncoderRecord(id="audio", sha256="a")}


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def build(root: Path, make_sample: Callable[..., Sample], order: list[int] | None = None) -> None:
    samples = (make_sample(index, video=b"mp4 of %d" % index) for index in order or range(CLIPS))
    build_small(root, samples, ENCODERS)


def test_bytes_do_not_depend_on_the_order_of_work(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    build(tmp_path / "a", make_sample)
    build(tmp_path / "b", make_sample, order=[5, 2, 0, 4, 1, 3])
    a, b = tree(tmp_path / "a" / "train"), tree(tmp_path / "b" / "train")
    assert a == b
    assert sorted(a) == ["manifest.json", "shard-00000.tar", "shard-00001.tar"]
    assert check_dataset(tmp_path / "a" / "train", media=False).problems == (), "the mp4s here are no videos"


def test_damaged_staged_sample_is_done_again(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    writer = SplitWriter(tmp_path, "train", num_shards=1, build="b", encoders=ENCODERS)
    staged = writer.stage(make_sample(0))
    assert writer.has(staged)
    piece = next((tmp_path / ".staging" / "train").iterdir())
    piece.write_bytes(b"\0" * staged.bytes)
    assert not writer.has(staged), "the same size with other bytes (a power cut) does not pass"
    with pytest.raises(UserError, match="train-0000"):
        writer.finish_shard(0, [staged])
    assert not list((tmp_path / "train").glob("*.tar"))


def test_another_configuration_is_refused(tmp_path: Path, make_split: Callable[..., object]) -> None:
    make_split(tmp_path, 2)
    with pytest.raises(UserError, match="another configuration"):
        SplitWriter(tmp_path, "train", num_shards=3, build="other", encoders=ENCODERS)


def test_same_key_twice_is_refused(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    writer = SplitWriter(tmp_path, "train", num_shards=1, build="b", encoders=ENCODERS)
    staged = [writer.stage(make_sample(0)), writer.stage(make_sample(0))]
    with pytest.raises(UserError, match="same key 'train-0000'"):
        writer.finish_shard(0, staged)


def test_placement_is_even_and_fixed() -> None:
    counts = np.bincount([shard_of(f"clip-{i}", 8) for i in range(4000)], minlength=8)
    assert counts.min() > 400
    assert [shard_of(f"clip-{i}", 8) for i in range(4)] == [0, 1, 6, 7], "placement is part of the format"


def test_round_trip_and_webdataset_reads_them(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    build(tmp_path, make_sample)
    ours = {sample.key: sample for sample in iter_samples(tmp_path / "train")}
    assert len(ours) == CLIPS
    for index in range(CLIPS):
        sample = make_sample(index, video=b"mp4 of %d" % index)
        assert ours[sample.key].meta == sample.meta
        assert ours[sample.key].video == sample.video
        assert all(torch.equal(ours[sample.key].tensors[name], value) for name, value in sample.tensors.items())
    urls = [str(path) for path in sorted((tmp_path / "train").glob("*.tar"))]
    theirs = list(WebDataset(urls, shardshuffle=False))
    assert {sample["__key__"] for sample in theirs} == set(ours)
    for sample in theirs:
        members = {name: sample[name] for name in ("json", "safetensors", "mp4")}
        assert from_members(sample["__key__"], members, "webdataset").meta == ours[sample["__key__"]].meta
    with tarfile.open(urls[0]) as archive:
        infos = archive.getmembers()
    assert [info.name for info in infos] == sorted(info.name for info in infos)
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in infos} == {(0, 0, 0, "", "")}


def test_statistics_are_those_of_all_frames(tmp_path: Path, make_split: Callable[..., object]) -> None:
    make_split(tmp_path, 7)
    statistics = read_manifest(tmp_path / "train").structure_statistics
    values = np.concatenate([s.tensors["structure"].numpy() for s in iter_samples(tmp_path / "train")])
    assert statistics is not None and statistics.count == len(values) == 35
    np.testing.assert_allclose(statistics.mean, values.astype(np.float64).mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(statistics.std, values.astype(np.float64).std(axis=0), atol=1e-12)


# -------------------- hostile and damaged shards


def tar_of(path: Path, members: list[tuple[str, bytes, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "/etc/evil.json",
        "a/b.json",
        "..json",
        ".json",
        "a.b.json",
        "a\\b.json",
        "key.pickle",
        "key",
        "key.JSON",
        "k\x01y.json",
        "ключ.json",
        "k" * 80 + "/" + "x.json",
    ],
)
def test_tricks_in_member_names_are_refused(tmp_path: Path, name: str) -> None:
    path = tar_of(tmp_path / "t.tar", [(name, b"{}", tarfile.REGTYPE)])
    with pytest.raises(UserError, match=r"t\.tar: (unsafe|unexpected) member"):
        list(iter_shard(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_members_that_are_no_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tar_of(tmp_path / "t.tar", [("key.json", b"", kind)])
    with pytest.raises(UserError, match="not a plain file"):
        list(iter_shard(path))


def test_duplicate_and_scattered_members_are_refused(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    one, two = (list(to_members(make_sample(index)).items()) for index in (0, 1))
    for members, said in (
        ([*one, one[-1]], "is a duplicate"),
        ([one[0], *two, one[1]], r"its \.safetensors is missing"),
        ([*one, *two, *one], "do not stand together"),
    ):
        path = tar_of(tmp_path / "t.tar", [(name, data, tarfile.REGTYPE) for name, data in members])
        with pytest.raises(UserError, match=said):
            list(iter_shard(path))


def told(path: Path, fewer_than: int) -> str:
    """The error that reading a damaged shard gives; its path if the damage only makes it end early."""
    try:
        count = len(list(iter_shard(path)))
    except UserError as error:
        return str(error)
    return str(path) if count < fewer_than else ""


def test_damage_is_told_with_the_file_and_found_by_check(tmp_path: Path, make_split: Callable[..., object]) -> None:
    make_split(tmp_path, 4, num_shards=1)
    path = tmp_path / "train" / "shard-00000.tar"
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        problems = check_dataset(tmp_path / "train").problems
        assert len(problems) == 1 and str(path) in problems[0] and "bytes" in problems[0]
        assert str(path) in told(path, 4)
    for position in range(7, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        path.write_bytes(bytes(damaged))
        assert any("sha256" in problem for problem in check_dataset(tmp_path / "train").problems)
        assert "shard-00000.tar" in told(path, 5)
    path.unlink()
    assert list(check_dataset(tmp_path / "train").problems) == [f"{path}: missing"]


def test_check_finds_wrong_samples_behind_right_hashes(tmp_path: Path, make_split: Callable[..., object]) -> None:
    make_split(tmp_path, 3, num_shards=1)
    manifest = json.loads((tmp_path / "train" / "manifest.json").read_text())
    manifest["encoders"]["audio"]["sha256"] = "other"
    manifest["split"] = "val"
    (tmp_path / "train" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "train" / "stray.tar").write_bytes(b"")
    problems = "\n".join(check_dataset(tmp_path / "train").problems)
    assert "stray.tar: not in the manifest" in problems
    assert "other encoders" in problems and "its split is 'train', the manifest says 'val'" in problems


def test_manifest_with_a_path_in_it_is_refused(tmp_path: Path, make_split: Callable[..., object]) -> None:
    make_split(tmp_path, 1, num_shards=1)
    path = tmp_path / "train" / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace("shard-00000.tar", "../shard-00000.tar"))
    with pytest.raises(UserError, match="plain file name"):
        read_manifest(tmp_path / "train")
    path.write_text(text)
    with pytest.raises(UserError, match="did you mean"):
        read_manifest(tmp_path)
    with pytest.raises(UserError, match="no such dataset"):
        read_manifest(tmp_path / "nowhere")


def change(sample: Sample, **tensors: torch.Tensor) -> Sample:
    return Sample(sample.meta, {**sample.tensors, **tensors})


def test_invalid_samples_are_refused_in_one_line(make_sample: Callable[..., Sample]) -> None:
    good = make_sample(0)
    validate_sample(good)
    nan = good.tensors["structure"].clone()
    nan[1, 1] = float("nan")
    cases = {
        "structure has shape 4x70, wanted 5x70": change(good, structure=good.tensors["structure"][:4]),
        "not finite": change(good, structure=nan),
        "wanted torch.float16": change(good, audio=good.tensors["audio"].float()),
        "outside 0..4": change(good, reference_frames=torch.tensor([0, 1, 5], dtype=torch.int32)),
        "differ in number": change(good, reference_frames=torch.tensor([0], dtype=torch.int32)),
        "x0 <= x1": change(good, mouth_boxes=good.tensors["mouth_boxes"].flip(-1)),
        "unknown tensors": change(good, extra=torch.zeros(1)),
        "truth_names": change(good, truth=torch.zeros(5, 1)),
        "tensors missing": Sample(good.meta, {}),
        "not 1 + 4n": Sample(good.meta.model_copy(update={"num_frames": 6}), good.tensors),
        "multiple of 8": Sample(good.meta.model_copy(update={"height": 12}), good.tensors),
        "schema version": Sample(good.meta.model_copy(update={"schema_version": 9}), good.tensors),
    }
    for said, sample in cases.items():
        with pytest.raises(UserError) as error:
            to_members(sample)
        assert said in str(error.value) and good.key in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["a.b", "a/b", "", "..", "a b", "é", "x" * 200])
def test_keys_are_plain(make_sample: Callable[..., Sample], key: str) -> None:
    with pytest.raises(ValueError):
        type(make_sample(0).meta).model_validate({**make_sample(0).meta.model_dump(), "key": key})


def test_tar_blocks_equal_the_library(make_sample: Callable[..., Sample]) -> None:
    members = to_members(make_sample(3, video=b"x" * 700))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size = len(members[name])
            archive.addfile(info, io.BytesIO(members[name]))
    blocks = tar_members(members)
    assert out.getvalue()[: len(blocks)] == blocks
