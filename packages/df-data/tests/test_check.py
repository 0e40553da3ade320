"""Each kind of damage done to a good dataset, and that very problem named by `df-data validate`.

A shard that is damaged inside is entered in the manifest anew (hash, size, moments), so that only the check of the
contents can notice.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors import torch as safetensors_torch

from df_data import cli
from df_data.build.encode import mp4_bytes
from df_data.check.checks.video import best_lag
from df_data.check.validate import check_dataset
from df_data.format.ledger import Ledger, LedgerEntry
from df_data.format.sample import EncoderRecord, Sample, to_members
from df_data.format.shards import SplitWriter, iter_shard, staged_shards, tar_members
from df_data.format.statistics import merge_moments, moments_of
from df_models.encoders.audio.logmel import LogMel
from df_models.errors import UserError
from df_models.media import write_video
from df_models.time import samples_for

FRAMES, SIZE = 33, 16
END = b"\0" * 1024
ENCODERS = {
    "video_vae": EncoderRecord(id="vae", sha256="v"),
    "audio": EncoderRecord(id=LogMel.id, sha256=LogMel().sha256),
}


def speech(seed: int) -> np.ndarray:
    """Noise in syllables of random length and loudness, float32 [N]."""
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0, 1, FRAMES // 3 + 1), 3 * 640)[: samples_for(FRAMES)]
    return (0.3 * loud**2 * rng.standard_normal(len(loud))).clip(-1, 1).astype(np.float32)


def pixels(frames: int = FRAMES, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (frames, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def clip(make_sample: Callable[..., Sample]) -> Callable[[int, str], Sample]:
    """A whole sample with audio, mp4 and log-mel features that belong together."""

    def make(index: int, split: str) -> Sample:
        wave = speech(index)
        sample = make_sample(index, frames=FRAMES, split=split, video=mp4_bytes(pixels(), wave, lossless=False))
        audio = LogMel().encode(wave, FRAMES).half()
        meta = sample.meta.model_copy(update={"encoders": ENCODERS})
        return Sample(meta, {**sample.tensors, "audio": audio}, sample.video)

    return make


@pytest.fixture
def dataset(tmp_path: Path, original: Path) -> Path:
    """A copy of the good dataset, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "data"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, clip: Callable[[int, str], Sample]) -> Path:
    """Two clips in `train`, one in `val`, with ledger and config."""
    root = tmp_path_factory.mktemp("original")
    ledger = Ledger(root / "ledger.jsonl")
    for split, count in (("train", 2), ("val", 1)):
        writer = SplitWriter(root, split, num_shards=1, build="b", encoders=ENCODERS)
        staged = [writer.stage(clip(index, split)) for index in range(count)]
        ledger.record(*(LedgerEntry(input=s.key, status="accepted", split=split, samples=(s,)) for s in staged))
        for shard in staged_shards(staged):
            writer.finish_shard(shard, staged)
        writer.finish()
    (root / "config.yaml").write_text("split: {by: identity}\n")
    return root


def problems_of(root: Path) -> list[str]:
    return list(check_dataset(root).problems)


def test_an_audio_dataset_has_no_problem(dataset: Path) -> None:
    report = check_dataset(dataset)
    assert report.problems == () and report.by_split == {dataset / "train": 0, dataset / "val": 0}
    assert (report.clips, report.shards) == (3, 2)
    assert report.bytes == sum(path.stat().st_size for path in dataset.glob("*/*.tar"))


# -------------------- writing a damaged shard


def samples_in(root: Path, split: str = "train") -> list[Sample]:
    return list(iter_shard(root / split / "shard-00000.tar"))


def pieces(samples: list[Sample]) -> list[dict[str, bytes]]:
    """Members of each sample by name; unlike `to_members` this checks nothing."""
    return [raw_members(sample) for sample in samples]


def raw_members(sample: Sample) -> dict[str, bytes]:
    key = sample.key
    members = {f"{key}.json": json.dumps(sample.meta.model_dump(mode="json", exclude_none=True)).encode()}
    if sample.video is not None:
        members[f"{key}.mp4"] = sample.video
    tensors = {name: tensor.contiguous() for name, tensor in sample.tensors.items()}
    return members | {f"{key}.safetensors": safetensors_torch.save(tensors)}


def enter(root: Path, data: bytes, samples: list[Sample] | None = None, **changes: Any) -> None:
    """Write the bytes of train's shard and make the manifest and the ledger agree with them."""
    path = root / "train" / "shard-00000.tar"
    path.write_bytes(data)
    manifest = json.loads((root / "train" / "manifest.json").read_text())
    entry = manifest["shards"][0]
    entry |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} | changes
    if samples is not None:
        moments = merge_moments(moments_of(sample.tensors["structure"].numpy()) for sample in samples)
        entry["structure"] = moments.model_dump(mode="json")
        std = moments.std.tolist()
        manifest["structure_statistics"] = {"mean": moments.mean, "std": std, "count": moments.count}
    (root / "train" / "manifest.json").write_text(json.dumps(manifest))


def rewrite(root: Path, members: list[dict[str, bytes]], samples: list[Sample] | None = None) -> None:
    """Train's shard anew from its samples' members, the ledger too."""
    written = [tar_members(m) for m in members]
    enter(root, b"".join(written) + END, samples)
    lines = [json.loads(line) for line in (root / "ledger.jsonl").read_text().splitlines()]
    for line, piece in zip(lines, written):
        line["samples"][0] |= {"bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
    (root / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def damage(root: Path, change: Callable[[Sample], Sample]) -> None:
    """Change train's first sample, everything else in agreement with it."""
    samples = samples_in(root)
    samples[0] = change(samples[0])
    rewrite(root, pieces(samples), samples)


def with_tensor(name: str, change: Callable[[torch.Tensor], object]) -> Callable[[Sample], Sample]:
    def apply(sample: Sample) -> Sample:
        tensor = sample.tensors[name].clone()
        changed = change(tensor)
        kept = changed if isinstance(changed, torch.Tensor) and changed is not tensor else tensor
        return Sample(sample.meta, {**sample.tensors, name: kept}, sample.video)

    return apply


def put(*place: int | slice, value: float) -> Callable[[torch.Tensor], None]:
    return lambda tensor: tensor.__setitem__(place, value)


def with_meta(**update: object) -> Callable[[Sample], Sample]:
    return lambda sample: Sample(sample.meta.model_copy(update=update), sample.tensors, sample.video)


def test_rewriting_a_shard_is_no_damage(dataset: Path) -> None:
    damage(dataset, lambda sample: sample)
    assert problems_of(dataset) == []


# -------------------- tensors

TENSORS: dict[str, tuple[str, Callable[[torch.Tensor], object]]] = {
    "video_latent reaches 99, at most 30 is plausible": ("video_latent", put(3, 2, 0, 0, value=99.0)),
    "reference_latents reaches 40": ("reference_latents", put(1, 2, 0, 0, value=40.0)),
    "audio reaches 2000": ("audio", put(5, 2, value=2000.0)),
    "reference_features reaches 1e+04": ("reference_features", put(0, 0, 0, value=1e4)),
    "structure's yaw reaches 400": ("structure", put(4, 64, value=-400.0)),
    "structure's expression reaches 11": ("structure", put(4, 62, value=11.0)),
    "structure's scale is not above 0": ("structure", put(9, 69, value=0.0)),
    "flame's pose reaches 90": ("flame", put(2, 150, value=90.0)),
    "holds values that are not finite": ("audio", put(0, 0, value=float("nan"))),
    "structure has shape 32x70, wanted 33x70": ("structure", lambda t: t[:-1]),
    "audio has shape 65x64, wanted 66x*": ("audio", lambda t: t[:-1]),
    "video_latent has shape 8x16x2x2, wanted 9x16x2x2": ("video_latent", lambda t: t[:-1]),
    "structure is torch.float16": ("structure", lambda t: t.half()),
    "reference_frames lie outside 0..32": ("reference_frames", put(2, value=33)),
    "mouth_boxes reach outside the 16x16 image in 1 of 33 frames, the first 7": ("mouth_boxes", put(7, 2, value=19)),
    "mouth_boxes are empty in 2 of 33 frames, the first 4": ("mouth_boxes", put(slice(4, 6), 3, value=8.0)),
    "reference latent 0 is of pixel frame 0, but differs": ("reference_latents", put(0, 3, value=2.0)),
}


@pytest.mark.parametrize("said", TENSORS)
def test_a_wrong_tensor_is_named(dataset: Path, said: str) -> None:
    name, change = TENSORS[said]
    damage(dataset, with_tensor(name, change))
    found = [line for line in problems_of(dataset) if "moments" not in line]
    assert len(found) == 1 and said in found[0] and "shard-00000.tar: sample train-0000: " in found[0]


def test_latents_that_begin_elsewhere_are_named(dataset: Path) -> None:
    """A slice of latents is not the latent of the slice: its first frame is not that of pixel frame 0 alone."""
    noise = torch.randn(9, 16, 2, 2, generator=torch.Generator().manual_seed(0)).half()
    damage(dataset, with_tensor("video_latent", lambda _: noise))
    (found,) = problems_of(dataset)
    assert "differs from latent frame 0 by" in found


# -------------------- metadata

METAS: dict[str, dict[str, object]] = {
    "its split is 'val', the manifest says 'train'": {"split": "val"},
    "other encoders than the manifest names (audio)": {"encoders": {"video_vae": ENCODERS["video_vae"]}},
    "its source '/home/me/clip.mp4' is an absolute path": {"source": "/home/me/clip.mp4"},
    "its source 'C:\\\\me\\\\clip.mp4' is an absolute path": {"source": "C:\\me\\clip.mp4"},
    "its licence is empty": {"licence": ""},
    "a phoneme ends before it begins": {"phonemes": (("AH", 0.3, 0.2),)},
    "30 fps instead of 25": {"fps": 30},
    "weight 1.5 is not in 0..1": {"weight": 1.5},
    "schema version 9": {"schema_version": 9},
    "unknown structure layout 'other'": {"structure_layout": "other"},
}


@pytest.mark.parametrize("said", METAS)
def test_wrong_metadata_is_named(dataset: Path, said: str) -> None:
    damage(dataset, with_meta(**METAS[said]))
    (found,) = problems_of(dataset)
    assert said in found and "sample train-0000: " in found


def test_a_score_that_is_not_finite_is_named(dataset: Path) -> None:
    samples = samples_in(dataset)
    members = pieces(samples)
    document = json.loads(members[0]["train-0000.json"])
    members[0]["train-0000.json"] = json.dumps(document | {"scores": {"snr": float("inf"), "blur": 1.0}}).encode()
    rewrite(dataset, members)
    (found,) = problems_of(dataset)
    assert found.endswith("sample train-0000: scores that are not finite: snr")


def test_unknown_metadata_and_broken_tensors_are_named_each(dataset: Path) -> None:
    members = pieces(samples_in(dataset))
    members[0]["train-0000.json"] = members[0]["train-0000.json"][:-1] + b',"extra":1}'
    members[1]["train-0001.safetensors"] = members[1]["train-0001.safetensors"][:100]
    rewrite(dataset, members)
    first, second = problems_of(dataset)
    assert "train-0000: bad metadata: extra" in first
    assert "train-0001: the tensors cannot be read" in second


# -------------------- mp4


def video(tmp_path: Path, frames: np.ndarray, wave: np.ndarray | None, fps: int = 25) -> bytes:
    write_video(tmp_path / "clip.mp4", frames, audio=wave, fps=fps)
    return (tmp_path / "clip.mp4").read_bytes()


def cut_short(tmp_path: Path, seconds: float) -> bytes:
    """A whole clip whose audio packets end early; the writer itself would fill the audio up."""
    video(tmp_path, pixels(), speech(0))
    with av.open(str(tmp_path / "clip.mp4")) as whole, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        streams = {stream.index: cut.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is None or (packet.stream.type == "audio" and packet.pts * packet.time_base >= seconds):
                continue
            packet.stream = streams[packet.stream.index]
            cut.mux(packet)
    return (tmp_path / "cut.mp4").read_bytes()


def shifted(seconds: float) -> np.ndarray:
    return np.roll(speech(0), round(seconds * 16_000))


VIDEOS: dict[str, Callable[[Path], bytes]] = {
    "its mp4 has 32 frames, the metadata says 33": lambda p: video(p, pixels(32), speech(0)),
    "its mp4 is 32x32, the metadata says 16x16": lambda p: video(p, pixels(size=32), speech(0)),
    "off its place at 25 frames a second": lambda p: video(p, pixels(), speech(0), fps=24),
    "its mp4 has no audio": lambda p: video(p, pixels(), None),
    "the audio of its mp4 lasts 0.64 s, its images 1.32 s": lambda p: cut_short(p, 0.6),
    "lies 80 ms later than its audio features": lambda p: video(p, pixels(), shifted(0.08)),
    "lies 40 ms earlier than its audio features": lambda p: video(p, pixels(), shifted(-0.04)),
    "its mp4 cannot be decoded": lambda p: b"no video" * 100,
}


@pytest.mark.parametrize("said", VIDEOS)
def test_a_wrong_mp4_is_named(dataset: Path, tmp_path: Path, said: str) -> None:
    data = VIDEOS[said](tmp_path)
    damage(dataset, lambda sample: Sample(sample.meta, sample.tensors, data))
    (found,) = problems_of(dataset)
    assert said in found and "sample train-0000: " in found
    assert check_dataset(dataset, media=False).problems == ()


@pytest.mark.parametrize("lag", [-7, -1, 0, 1, 5])
def test_the_lag_of_two_curves(lag: int) -> None:
    noise = np.random.default_rng(1).standard_normal(120)
    curve = np.convolve(noise, np.ones(3), "same")
    assert best_lag(curve, np.roll(curve, lag)) == lag
    assert best_lag(curve, np.zeros(120)) == 0, "silence tells nothing"


# -------------------- tar


def test_a_tar_of_another_layout_is_named(dataset: Path) -> None:
    samples = samples_in(dataset)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for members in map(to_members, samples):
            for name in sorted(members):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(members[name]), 1_700_000_000 if name == "train-0001.json" else 0
                archive.addfile(info, io.BytesIO(members[name]))
    enter(dataset, out.getvalue())
    found = problems_of(dataset)
    assert "sample train-0001: is not laid out as the format says" in found[0]
    assert "sample train-0001 of train is not the one that was accepted" in found[-1]
    assert not any("train-0000" in line for line in found)


def test_samples_out_of_order_are_named(dataset: Path) -> None:
    samples = samples_in(dataset)
    enter(dataset, b"".join(tar_members(m) for m in reversed(pieces(samples))) + END, samples)
    found = [line for line in problems_of(dataset) if "accepted" not in line]
    assert len(found) == 1 and "sample train-0000 stands after train-0001" in found[0]


def test_bytes_behind_the_end_are_named(dataset: Path) -> None:
    data = (dataset / "train" / "shard-00000.tar").read_bytes()
    enter(dataset, data + b"hidden")
    (found,) = problems_of(dataset)
    assert "does not end with two blocks of zeros after the last sample" in found


def test_a_member_that_is_a_link_is_named(dataset: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("train-0000.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    enter(dataset, out.getvalue())
    assert any("member 'train-0000.json' is not a plain file" in line for line in problems_of(dataset))


def test_a_sample_in_two_shards_is_named(dataset: Path) -> None:
    manifest_path = dataset / "train" / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    again = dict(manifest["shards"][0], name="shard-00001.tar")
    manifest |= {"shards": [manifest["shards"][0], again], "num_shards": 2}
    manifest_path.write_text(json.dumps(manifest))
    data = (dataset / "train" / "shard-00000.tar").read_bytes()
    (dataset / "train" / "shard-00001.tar").write_bytes(data)
    found = problems_of(dataset)
    assert sum("is a duplicate" in line for line in found) == 2
    assert any("structure_statistics are not those of its shards" in line for line in found)


# -------------------- manifest

ENTRIES = {
    "count": ("its count is 2, the manifest says 3", 3),
    "pixel_frames": ("its pixel_frames is 66, the manifest says 65", 65),
    "shortest": ("its shortest is 33, the manifest says 29", 29),
    "longest": ("its longest is 33, the manifest says 37", 37),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_wrong_number_in_the_manifest_is_named(dataset: Path, name: str) -> None:
    said, value = ENTRIES[name]
    enter(dataset, (dataset / "train" / "shard-00000.tar").read_bytes(), **{name: value})
    (found,) = problems_of(dataset)
    assert found.endswith(said)


def edit_manifest(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "train" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_wrong_moments_and_statistics_are_named(dataset: Path) -> None:
    edit_manifest(dataset, lambda m: m["structure_statistics"]["std"].__setitem__(0, 9.0))
    (found,) = problems_of(dataset)
    assert "structure_statistics are not those of its shards" in found
    edit_manifest(dataset, lambda m: m["shards"][0]["structure"]["mean"].__setitem__(3, 9.0))
    found = problems_of(dataset)
    assert any("moments of its structure vectors are not those of its samples" in line for line in found)


def test_an_unfinished_split_is_named(dataset: Path) -> None:
    edit_manifest(dataset, lambda m: m.update(complete=False))
    assert problems_of(dataset) == [f"{dataset / 'train'}: not complete; run the build again"]


def test_shards_out_of_order_in_the_manifest_are_named(dataset: Path) -> None:
    edit_manifest(dataset, lambda m: m.update(shards=m["shards"] * 2, num_shards=2))
    assert any("not in the order of their names, each once" in line for line in problems_of(dataset))


# -------------------- files


def test_a_flipped_bit_a_cut_and_a_missing_shard_are_named(dataset: Path) -> None:
    path = dataset / "train" / "shard-00000.tar"
    whole = path.read_bytes()
    for position in (0, 700, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert problems_of(dataset) == [
            f"{path}: its sha256 is not the manifest's; build it again (df-data build --retry damaged)"
        ]
    path.write_bytes(whole[:-1])
    assert problems_of(dataset) == [f"{path}: {len(whole) - 1} bytes, the manifest says {len(whole)}"]
    path.unlink()
    assert problems_of(dataset) == [f"{path}: missing"]


def test_stray_and_left_files_are_named(dataset: Path) -> None:
    stray = dataset / "train" / "shard-00007.tar"
    stray.write_bytes(b"")
    torn = dataset / "val" / ".shard-00000.abc.tmp.tar"
    torn.write_bytes(b"")
    (dataset / ".staging" / "train").mkdir(parents=True)
    assert problems_of(dataset) == [
        f"{stray}: not in the manifest",
        f"{torn}: left by a writer that was killed; delete it",
        f"{dataset / '.staging'}: left by a build though all splits are complete; delete it",
    ]


def test_the_staging_directory_of_an_unfinished_build_is_no_leftover(dataset: Path) -> None:
    (dataset / ".staging" / "train").mkdir(parents=True)
    edit_manifest(dataset, lambda m: m.update(complete=False))
    assert problems_of(dataset) == [f"{dataset / 'train'}: not complete; run the build again"]


# -------------------- ledger and persons


def edit_ledger(root: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    lines = [json.loads(line) for line in (root / "ledger.jsonl").read_text().splitlines()]
    change(lines)
    (root / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


LEDGERS: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "sample train-0000 of train stands in shard-00000.tar, but no input": lambda lines: lines.pop(0),
    "sample ghost of train was accepted, but stands in no shard": lambda lines: lines.append(
        dict(lines[0], input="ghost", samples=[dict(lines[0]["samples"][0], key="ghost")])
    ),
    "sample train-0000 of train belongs in shard-00001.tar": lambda lines: lines[0]["samples"][0].update(shard=1),
    "sample train-0000 of train is not the one that was accepted": lambda lines: lines[0]["samples"][0].update(
        sha256="0" * 64
    ),
    "far was accepted into the split 'test', which is not there": lambda lines: lines.append(
        dict(lines[0], input="far", split="test")
    ),
}


@pytest.mark.parametrize("said", LEDGERS)
def test_where_ledger_and_shards_disagree(dataset: Path, said: str) -> None:
    edit_ledger(dataset, LEDGERS[said])
    (found,) = problems_of(dataset)
    assert said in found and found.startswith(f"{dataset / 'ledger.jsonl'}: ")
    assert check_dataset(dataset / "train").problems == (), "one split alone is checked without the ledger"


def test_a_torn_and_a_damaged_ledger_are_named_and_left_alone(dataset: Path) -> None:
    path = dataset / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert problems_of(dataset) == [f"{path}: its last line is torn; run the build again, which does that input anew"]
    assert path.read_bytes() == whole[:-30]
    path.write_bytes(b"{}\n" + whole)
    (found,) = problems_of(dataset)
    assert "line 1 is damaged" in found


def test_a_missing_ledger_is_a_problem_of_the_dataset_and_not_of_a_split(dataset: Path) -> None:
    path = dataset / "ledger.jsonl"
    path.unlink()
    (found,) = problems_of(dataset)
    assert found.startswith(f"{path}: missing; ") and not path.exists()
    assert problems_of(dataset / "train") == []


def test_a_person_in_two_splits_is_named_unless_sentences_were_held_out(dataset: Path) -> None:
    damage(dataset, with_meta(identity="val-0"))
    assert problems_of(dataset) == [f"{dataset}: persons in more than one split: val-0"]
    (dataset / "config.yaml").write_text("split: {by: sentence}\n")
    assert problems_of(dataset) == []
    (dataset / "config.yaml").unlink()
    assert len(problems_of(dataset)) == 1


# -------------------- the command


def test_workers_change_nothing(tmp_path: Path, make_split: Callable[..., object]) -> None:
    make_split(tmp_path, 8, num_shards=3)
    shard = next((tmp_path / "train").glob("shard-*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1])
    alone, pooled = check_dataset(tmp_path / "train"), check_dataset(tmp_path / "train", workers=2)
    assert alone == pooled and len(alone.problems) == 1
    assert check_dataset(tmp_path / "train").problems == alone.problems


def test_the_command_prints_a_line_each_and_exits_with_1(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", str(dataset)]) == 0
    assert "3 clips in 2 shards" in capsys.readouterr().out
    edit_ledger(dataset, LEDGERS["sample train-0000 of train belongs in shard-00001.tar"])
    edit_manifest(dataset, lambda m: m.update(complete=False))
    assert cli.main(["validate", str(dataset), "--no-video"]) == 1
    out = capsys.readouterr().out
    assert "train: 1 problem\n" in out and "val: ok" in out and "not complete" in out and "belongs in" in out
    assert "checked: 2 problems" in out
    assert cli.main(["validate", str(dataset), "--workers", "0"]) == 2


def test_a_config_that_is_no_yaml_is_an_error(dataset: Path) -> None:
    (dataset / "config.yaml").write_text("split: [")
    with pytest.raises(UserError, match="not valid YAML"):
        check_dataset(dataset)
