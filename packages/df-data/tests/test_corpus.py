from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from df_data.build import encode
from df_data.check.validate import check_dataset
from df_data.format.manifest import read_manifest
from df_data.format.sample import Sample
from df_data.format.shards import iter_samples
from df_data.reading import ShardReader
from df_data.synth import corpus
from df_data.synth.clip import make_clip
from df_data.synth.corpus import SynthConfig, build_corpus, jobs_of
from df_data.synth.planned import planned_manifest
from df_data.synth.recorded import check_place, corpus_config
from df_models.encoders import load_audio_encoder, random_tiny_vae
from df_models.errors import UserError
from df_models.machine import choose_precision
from df_models.media import read_video
from df_models.settings import load_config

CONFIG = SynthConfig(
    clips=5, val_clips=2, frames=5, val_frames=9, size=32, seed=4, clips_per_identity=2, clips_per_shard=3, workers=1
)
GROUP_FRAMES = 10


@pytest.fixture(autouse=True, scope="module")
def _random_vae() -> Iterator[None]:
    """Shapes are what matters here; small groups make several of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "load_video_vae", lambda name: random_tiny_vae(0))
        patch.setattr(corpus, "ENCODE_FRAMES", GROUP_FRAMES)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, _random_vae: None) -> Path:
    return build_corpus(CONFIG, tmp_path_factory.mktemp("corpus") / "c", progress=False)


def data_bytes(root: Path) -> dict[str, bytes]:
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for split in ("train", "val") for p in (root / split).iterdir()}


def test_what_is_built(built: Path) -> None:
    assert sorted(path.name for path in built.iterdir() if path.name[0] != ".") == [
        "config.yaml",
        "ledger.jsonl",
        "train",
        "val",
    ]
    for split, count in (("train", 5), ("val", 2)):
        assert check_dataset(built / split).problems == ()
        manifest = read_manifest(built / split)
        assert (manifest.count, manifest.complete, manifest.height, manifest.split) == (count, True, 32, split)
        assert set(manifest.encoders) == {"video_vae", "audio", "reference"}
        levels = [sample.meta.scores["speech_level"] for sample in iter_samples(built / split)]
        assert manifest.speech_level == pytest.approx(np.mean(levels), abs=0.01)
    assert load_config(SynthConfig, built / "config.yaml") == CONFIG
    lines = [json.loads(line) for line in (built / "ledger.jsonl").read_text().splitlines()]
    assert {line["status"] for line in lines} == {"accepted"} and len(lines) == 7


def test_splits_share_no_person_and_no_words(built: Path) -> None:
    train, val = (list(iter_samples(built / split)) for split in ("train", "val"))
    assert not {s.meta.identity for s in train} & {s.meta.identity for s in val}
    assert not {s.meta.text for s in train} & {s.meta.text for s in val}
    assert len({s.meta.identity for s in train}) == 3, "two clips a person"
    assert len({str(s.meta.provenance["sentence"]) for s in train}) == 5


def test_sample_is_the_clip(built: Path) -> None:
    samples: dict[str, Sample] = {s.key: s for split in ("train", "val") for s in iter_samples(built / split)}
    vae, audio = random_tiny_vae(0), load_audio_encoder("logmel")
    vae.to(dtype=choose_precision("auto", "cpu").dtype)
    for job in (jobs_of(CONFIG, "train")[3], jobs_of(CONFIG, "val")[1]):
        sample = samples[job.key]
        clip = make_clip(job.seed, job.identity, job.frames, 32, split=job.split)
        np.testing.assert_array_equal(sample.tensors["structure"], clip.structure)
        np.testing.assert_array_equal(sample.tensors["mouth_boxes"], clip.mouth_boxes)
        assert torch.equal(sample.tensors["audio"], audio.encode(clip.wave, job.frames).half())
        names = sample.meta.truth_names
        assert names is not None and {"mouth_open", "yaw", "blink"} <= set(names)
        np.testing.assert_array_equal(sample.tensors["truth"][:, names.index("mouth_open")], clip.truth["mouth_open"])
        pixels = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            latent = vae.encode(pixels[None])[0]
            frames = sample.tensors["reference_frames"].tolist()
            alone = vae.encode_image(pixels[frames])
        assert frames[0] == 0 and frames == sorted(set(frames)) and len(frames) == 4
        tolerance = 0.02 * float(latent.std())
        torch.testing.assert_close(sample.tensors["video_latent"].float(), latent, atol=tolerance, rtol=0.02)
        torch.testing.assert_close(sample.tensors["reference_latents"].float(), alone, atol=tolerance, rtol=0.02)
        torch.testing.assert_close(
            sample.tensors["reference_latents"][0], sample.tensors["video_latent"][0], atol=tolerance, rtol=0.02
        )


def test_validation_keeps_its_pixels_without_loss(built: Path, tmp_path: Path) -> None:
    job = jobs_of(CONFIG, "val")[0]
    sample = next(s for s in iter_samples(built / "val") if s.key == job.key)
    assert sample.video is not None
    (tmp_path / "clip.mp4").write_bytes(sample.video)
    frames, fps = read_video(tmp_path / "clip.mp4")
    assert fps == 25
    np.testing.assert_array_equal(frames, make_clip(job.seed, job.identity, 9, 32, split="val").frames)
    assert all(s.video is None for s in iter_samples(built / "train"))


def test_made_again_at_once_and_refused_with_another_config(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    monkeypatch.setattr(corpus.Encoders, "load", lambda *names: pytest.fail("a whole corpus needs no encoders"))
    build_corpus(CONFIG.model_copy(update={"workers": 7}), built, progress=False)
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before
    monkeypatch.undo()
    monkeypatch.setattr(encode, "load_video_vae", lambda name: random_tiny_vae(0))
    other = CONFIG.model_copy(update={"seed": 5, "clips": 9})
    with pytest.raises(UserError, match=r"holds a corpus of clips=5, seed=4, not of clips=9, seed=5; .*data.root="):
        build_corpus(other, built, progress=False)
    with pytest.raises(UserError, match=r"holds a corpus of seed=4, not of seed=5"):
        build_corpus(other, built, progress=False, fit=lambda seconds: pytest.fail("nothing is measured for it"))
    monkeypatch.setattr(encode, "load_video_vae", lambda name: random_tiny_vae(1))
    assert build_corpus(CONFIG, built, progress=False) == built, "the manifest names the encoders it was made with"


def test_lost_shard_is_told(built: Path) -> None:
    shard = next((built / "val").glob("*.tar"))
    hidden = shard.rename(shard.with_suffix(".gone"))
    with pytest.raises(UserError, match=f"{shard.name} was removed"):
        build_corpus(CONFIG, built, progress=False)
    hidden.rename(shard)


def test_broken_off_and_resumed_gives_the_same_bytes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = corpus._store, [0]

    def breaking(*args: object) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        real(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(corpus, "_store", breaking)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(CONFIG, tmp_path / "c", progress=False)
    with pytest.raises(UserError, match="not complete"):
        ShardReader(tmp_path / "c" / "train", batch_size=1, seed=0)
    piece = sorted((tmp_path / "c" / ".staging" / "train").glob("*.piece"))[0]
    piece.write_bytes(piece.read_bytes()[:-700])
    build_corpus(CONFIG, tmp_path / "c", progress=False)
    assert calls[0] == 3 + 1 + 1 + 2, "the broken-off group, the damaged one, the two of val; nothing else again"
    assert data_bytes(tmp_path / "c") == data_bytes(built)


def test_as_many_clips_as_a_trial_allows(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    def five(seconds: float) -> int:
        told.append(seconds)
        return 5

    many, out = CONFIG.model_copy(update={"clips": 50}), tmp_path / "c"
    monkeypatch.setattr(corpus, "_TRIAL_CLIPS", 4)
    assert corpus_config(out) is None
    build_corpus(many, out, progress=False, fit=five)
    assert data_bytes(out) == data_bytes(built) and corpus_config(out) == CONFIG
    assert len(told) == 1 and 0 < told[0] < 60
    build_corpus(many.model_copy(update={"workers": 3}), out, progress=False, fit=five)
    assert len(told) == 1, "a corpus that was begun keeps its number of clips"
    check_place(many, out, fitted=True)
    with pytest.raises(UserError, match=r"holds a corpus of clips=5, not of clips=50; .*data\.synth=null"):
        check_place(many, out)
    fewer, other = CONFIG.model_copy(update={"clips": 3}), many.model_copy(update={"seed": 9})
    for refused in (fewer, other):
        with pytest.raises(UserError, match=r"another configuration|holds a corpus of seed=4, not of seed=9"):
            build_corpus(refused, out, progress=False, fit=five)
    assert len(told) == 1, "nothing is tried where nothing can be made"


def test_a_fit_cannot_ask_for_more_than_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_TRIAL_CLIPS", 1)
    build_corpus(CONFIG.model_copy(update={"clips": 2}), tmp_path / "c", progress=False, fit=lambda seconds: 99)
    assert read_manifest(tmp_path / "c" / "train").count == 2


def test_what_a_corpus_will_say_is_what_it_says(built: Path) -> None:
    made = read_manifest(built / "train")
    unknown = ("build", "complete", "num_shards", "shards", "structure_statistics")
    planned = planned_manifest(CONFIG).model_copy(update={name: getattr(made, name) for name in unknown})
    assert planned == made


def test_reader_reads_the_corpus(built: Path) -> None:
    batch = next(iter(ShardReader(built / "train", batch_size=4, seed=0)))
    assert batch.video.shape == (4, 2, 16, 4, 4)
    assert batch.structure.shape == (4, 2, 4, 70) and batch.audio.shape == (4, 2, 4, 128)
    assert batch.reference_tokens.shape == (4, 16, 64)
    assert batch.flame is not None and batch.flame.shape == (4, 2, 4, 159)
    share = batch.mouth_mask.sum((-2, -1))
    assert float(share.min()) > 0.05 and float(batch.mouth_mask.max()) <= 1


def test_a_corpus_of_one_person_holds_out_sentences(tmp_path: Path) -> None:
    config = SynthConfig(clips=2, val_clips=1, frames=5, val_frames=5, size=32, workers=1, person=1_900_000)
    assert {job.identity for split in ("train", "val") for job in jobs_of(config, split)} == {1_900_000}
    root = build_corpus(config, tmp_path / "person", progress=False)
    samples = {split: list(iter_samples(root / split)) for split in ("train", "val")}
    assert {(s.meta.identity, split) for split, found in samples.items() for s in found} == {
        ("synth-1900000", "train"),
        ("synth-1900000", "val"),
    }
    told = {split: " ".join(sample.meta.text or "" for sample in found) for split, found in samples.items()}
    words = {split: set(text.split()) - {"|"} for split, text in told.items()}
    assert words["train"]
    assert not words["train"] & words["val"]
    assert not [line for line in check_dataset(root).problems if "person" in line]


def test_clips_do_not_depend_on_how_many_are_made() -> None:
    few, many = jobs_of(CONFIG, "train"), jobs_of(CONFIG.model_copy(update={"clips": 50}), "train")
    assert many[:5] == few
    assert len({job.seed for job in many}) == 50


@pytest.mark.parametrize("change", ["frames=6", "size=40", "clips=0", "workers=0", "seed=-1"])
def test_impossible_configurations(change: str) -> None:
    with pytest.raises(UserError, match=change.split("=")[0]):
        load_config(SynthConfig, None, [change])


def children_of(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.add(int(stat.parent.name))
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_kill_9_leaves_no_process_and_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "df_data.cli", "synth", "--clips", "24", "--val-clips", "1", "--frames", "5"]
    command += ["--val-frames", "5", "--size", "32"]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    for progress in (0, 20):
        with subprocess.Popen(
            [*command, "--out", str(tmp_path / "cut")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            ledger = tmp_path / "cut" / "ledger.jsonl"
            while process.poll() is None and not (
                len(children_of(process.pid)) > 1 and (ledger.exists() or not progress)
            ):
                time.sleep(0.02)
            time.sleep(0.01 * progress)
            children = children_of(process.pid)
            process.kill()
        deadline = time.monotonic() + 180  # a worker that is still importing ends when it has
        while any(map(runs, children)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(runs, children))
    subprocess.run([*command, "--out", str(tmp_path / "cut")], check=True, capture_output=True)
    assert data_bytes(tmp_path / "cut") == data_bytes(tmp_path / "whole")
