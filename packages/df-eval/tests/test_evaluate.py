"""Held-out clips out of shards, and the command from a run directory to the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from df_data.build.encode import Encoders, mp4_bytes
from df_data.format.manifest import read_manifest, write_manifest
from df_data.format.shards import SplitWriter
from df_data.synth.clip import IDENTITIES, SynthClip, make_clip
from df_data.synth.corpus import sample_of
from df_eval.cli import main
from df_eval.clips import stored_clips, structure_encoder_of
from df_eval.config import EvalConfig
from df_eval.dataset import dataset_of
from df_eval.measure import GENERATED, GROUND_TRUTH
from df_eval.protocols.held_out import held_out_clips
from df_infer.run_dir import RunDir, RunRecord
from df_models import DualForce
from df_models.encoders import load_audio_encoder, load_reference_encoder, random_tiny_vae
from df_models.errors import UserError
from df_models.time import latent_length

FRAMES = 53


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SynthClip]]:
    """A run whose dataset holds three val clips of two people; the first person has two."""
    root = tmp_path_factory.mktemp("run")
    encoders = Encoders(random_tiny_vae(0), load_audio_encoder("logmel"), load_reference_encoder("patches"))
    first = IDENTITIES["val"].start
    clips = [make_clip(seed, first + person, FRAMES, 32, split="val") for seed, person in ((1, 0), (2, 0), (3, 1))]
    writer = SplitWriter(root / "data", "val", num_shards=1, build="test", encoders=encoders.records())
    images = {
        "video_latent": torch.zeros(latent_length(FRAMES), 16, 4, 4).half(),
        "reference_latents": torch.zeros(2, 16, 4, 4).half(),
        "reference_frames": torch.tensor([0, 5], dtype=torch.int32),
        "reference_features": torch.zeros(2, 16, 64).half(),
    }
    staged = []
    for index, clip in enumerate(clips):
        audio = encoders.audio.encode(clip.wave, FRAMES).half()
        video = mp4_bytes(clip.frames, clip.wave, lossless=True)
        staged.append(writer.stage(sample_of(f"clip-{index}", 0, clip, audio, images, video, encoders)))
    writer.finish_shard(0, staged)
    writer.finish()
    (root / "model").mkdir()
    (root / "config.yaml").write_text(f"data: {{root: {root / 'data'}, synth: {{size: 32}}}}\n")
    return root, clips


def test_stored_clips_come_back_as_they_were_rendered(stored: tuple[Path, list[SynthClip]]) -> None:
    root, clips = stored
    found = {clip.key: clip for clip in stored_clips(root / "data", 3, FRAMES)}
    for index, clip in enumerate(clips):
        mine = found[f"clip-{index}"]
        np.testing.assert_array_equal(mine.frames_THWC, clip.frames)
        np.testing.assert_allclose(mine.truth["mouth_open"], clip.truth["mouth_open"], atol=1e-6)
        assert mine.length == FRAMES and mine.audio_encoder == "logmel"
        assert mine.audio_TD is not None
        features = load_audio_encoder("logmel").encode(clip.wave, FRAMES)
        torch.testing.assert_close(mine.audio_TD, features, atol=2e-3, rtol=2e-3)


def test_people_take_turns(stored: tuple[Path, list[SynthClip]]) -> None:
    root, _ = stored
    assert len({clip.identity for clip in stored_clips(root / "data", 2, 33)}) == 2
    assert stored_clips(root / "data", 2, FRAMES + 4) == []


def test_the_run_s_own_clips_are_taken_if_they_do_and_rendered_if_not(stored: tuple[Path, list[SynthClip]]) -> None:
    run = stored[0] / "data"
    encoder = structure_encoder_of(run)
    assert encoder.startswith("synth")
    clips, listed = held_out_clips(run, EvalConfig(clips=3, frames=(25, 53)), encoder, 32)
    assert {clip.key for clip in clips} == {"clip-0", "clip-1", "clip-2"} and "val clips" in listed.source
    clips, listed = held_out_clips(run, EvalConfig(clips=1, frames=(25, 57), shifts=(25,)), encoder, 32)
    assert "rendered" in listed.source and clips[0].length == 57
    assert clips[0].identity not in {f"synth-{clip.identity}" for clip in stored[1]}


def test_real_data_uses_what_there_is_and_says_when_there_is_nothing(stored: tuple[Path, list[SynthClip]]) -> None:
    run = stored[0] / "data"
    clips, _ = held_out_clips(run, EvalConfig(clips=9, frames=(33, 129)), "mediapipe", 32)
    assert len(clips) == 3
    with pytest.raises(UserError, match="holds no clip of 129 frames"):
        held_out_clips(run, EvalConfig(clips=9, frames=(129,)), "mediapipe", 32)


def test_a_run_from_a_url_wants_its_dataset_on_a_disk(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {root: 'https://host/data'}\n")
    with pytest.raises(UserError, match="trained on https://host/data, and evaluation reads clips from a directory"):
        dataset_of(RunDir(tmp_path), EvalConfig())


@pytest.mark.slow
def test_the_command_from_a_run_to_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "untrained"
    torch.manual_seed(0)
    DualForce.from_preset("quickstart").save_pretrained(str(run / "model"))
    (run / "config.yaml").write_text("data: {root: gone, synth: {size: 64}}\nrollout: {steps: 2, window: 3}\n")
    argv = [str(run), "--clips", "2", "--frames", "25", "rollout.steps=1", "--quiet"]
    assert main(argv) == 0
    assert main([*argv, "--require-goals", "--out", str(tmp_path / "again")]) == 1
    assert "| generated" in capsys.readouterr().out
    first, again = (json.loads((p / "metrics.json").read_text()) for p in (run / "eval", tmp_path / "again"))
    assert first["lengths"] == again["lengths"]
    rollout = first["protocol"]["rollout"]
    assert (rollout["steps"], rollout["window"]) == (1, 3), "the run's own, but for what is said"
    rows = first["lengths"]["25"]["rows"]
    assert rows[GROUND_TRUTH]["lip_sync"]["value"] > 0.95
    assert rows[GENERATED]["motion_ratio"]["n"] == 2
    assert (run / "eval" / "report.html").is_file()
    (run / "models").mkdir()
    shutil.copytree(run / "model", run / "models" / "step-4")
    before = (run / "eval" / "metrics.json").read_bytes()
    assert main([*argv, "--checkpoint", "4"]) == 0
    milestone = run / "eval" / "step-4"
    told = json.loads((milestone / "metrics.json").read_text())
    assert told["lengths"] == first["lengths"] and told["protocol"]["config"]["checkpoint"] == 4
    assert "step 4" in (milestone / "table.md").read_text()
    assert main(argv) == 0
    assert json.loads((run / "eval" / "metrics.json").read_text())["lengths"] == json.loads(before)["lengths"]
    assert (milestone / "report.html").is_file(), "neither evaluation replaces the other"


def test_exported_clips_are_those_of_the_last_export(tmp_path: Path) -> None:
    torch.manual_seed(0)
    DualForce.from_preset("quickstart").save_pretrained(str(tmp_path / "run" / "model"))
    (tmp_path / "run" / "config.yaml").write_text("data: {root: gone, synth: {size: 64}}\n")
    argv = [str(tmp_path / "run"), "--frames", "25", "--export", str(tmp_path / "clips"), "--quiet"]
    assert main([*argv, "--clips", "2"]) == 0
    more = _named(tmp_path / "clips")
    (tmp_path / "clips" / "another-system.mp4").touch()
    (tmp_path / "mine.mp4").touch()
    with (tmp_path / "clips" / ".df-eval-clips").open("a") as mark:
        mark.write("\n..\n../mine.mp4\n")
    assert main([*argv, "--clips", "1"]) == 0
    fewer = _named(tmp_path / "clips") - {"another-system.mp4"}
    assert fewer < more and (len(fewer), len(more)) == (3, 6)
    assert (tmp_path / "clips" / "another-system.mp4").is_file(), "what it did not write stays"
    assert (tmp_path / "mine.mp4").is_file(), "the list of what was written is not trusted as a path"


def _named(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.startswith(".")}


def _recorded(root: Path, run: Path) -> RunDir:
    """A run that was trained on the dataset at ``root``, as it says itself."""
    held = RunDir(run)
    held.write_record(RunRecord(str(root), {"train": "?", "val": read_manifest(root / "val").digest}))
    held.config.write_text("data: {root: data, synth: {size: 32}}\n")
    return held


def test_the_run_s_dataset_is_found_from_any_directory(
    stored: tuple[Path, list[SynthClip]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _recorded(stored[0] / "data", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert dataset_of(run, EvalConfig()) == stored[0] / "data"


def test_another_dataset_is_refused_wherever_it_comes_from(
    stored: tuple[Path, list[SynthClip]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _recorded(stored[0] / "data", tmp_path / "run")
    other = tmp_path / "elsewhere" / "data" / "val"
    shutil.copytree(stored[0] / "data" / "val", other)
    manifest = read_manifest(other)
    write_manifest(other, manifest.model_copy(update={"shards": ()}))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert dataset_of(run, EvalConfig()) == stored[0] / "data"
    with pytest.raises(UserError, match="holds 0 other clips"):
        dataset_of(run, EvalConfig(data=Path("data")))
    run.write_record(RunRecord(str(tmp_path / "gone"), {"val": manifest.digest}))
    with pytest.raises(UserError, match=r"not found: data/val holds 0 other clips.*--data DIR.*render=true"):
        dataset_of(run, EvalConfig())
    assert dataset_of(run, EvalConfig(data=stored[0] / "data")) == stored[0] / "data"
    assert dataset_of(run, EvalConfig(render=True)) is None
