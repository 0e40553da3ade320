"""Held-out clips: measured alike in every run and on any number of processes; training does not notice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from df_data.format.shards import iter_samples
from df_infer.run_log import read_log
from df_models.errors import UserError
from df_models.settings import dump_config
from df_models.time import to_slots
from df_train import begin, engine
from df_train.config import FlameLossConfig, TrainConfig
from df_train.data.dataset import own_statistics_note, set_statistics, training_manifest
from df_train.figures.meter import BUCKETS
from df_train.noising import Streams
from df_train.objective import Objective
from df_train.preflight import preflight
from df_train.processes.distributed import World, open_world
from df_train.run import build, train
from df_train.saving import state
from df_train.saving.state import TrainState
from df_train.validation import clips
from df_train.validation.clips import read_clips
from df_train.validation.measure import Validation, alike, figures
from df_train.validation.showing import given_clean, repeated, show_held_out, stratified

MakeConfig = Callable[..., TrainConfig]
Interrupted = Callable[..., AbstractContextManager[None]]
HISTORIES = ("independent", "clean_past", "teacher_forcing")
EXACT = {"precision": {"bf16": "off"}}


def lines_of(run: Path) -> list[dict[str, float]]:
    lines = read_log(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def held_out(run: Path) -> list[dict[str, float]]:
    return [line for line in lines_of(run) if "val/loss" in line]


def trained(run: Path) -> list[dict[str, float]]:
    return [line for line in lines_of(run) if "loss" in line]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with open_world("cpu") as opened:
        yield opened


def made(config: TrainConfig, world: World) -> tuple[TrainState, Objective, Validation]:
    manifest = training_manifest(config.data)
    training, objective, _ = build(config, world, manifest)
    clips = read_clips(config, manifest, training.model.config)
    return training, objective, Validation(clips, config.validation.histories, objective, world)


# -------------------- how a clip is shown


@pytest.mark.parametrize("frames", [2, 3, 9])
@pytest.mark.parametrize("history", HISTORIES)
def test_each_clip_fills_every_bucket_equally(frames: int, history: Any):
    for sample in range(50):
        noisy = ~given_clean(frames, sample, history)
        assert noisy.any() and (history != "clean_past" or not noisy[0])
        for stream in Streams._fields:
            bucket = (stratified(frames, sample, stream)[:, noisy] * BUCKETS).long()
            assert torch.equal(bucket.flatten().bincount(minlength=BUCKETS), noisy.sum().expand(BUCKETS))
            assert torch.equal(bucket.sort(dim=0).values, torch.arange(BUCKETS)[:, None].expand_as(bucket))


def test_levels_are_those_of_the_clip_alone_and_differ_between_frames_and_streams():
    torch.manual_seed(1)
    one = stratified(9, 5, "video")
    torch.manual_seed(2)
    assert torch.equal(one, stratified(9, 5, "video"))
    assert not torch.equal(one, stratified(9, 6, "video"))
    assert not torch.equal(one, stratified(9, 5, "structure"))
    assert len({tuple(column) for column in one.argsort(dim=0).T.tolist()}) > 1, "frames have orders of their own"
    many = torch.stack([stratified(9, sample, "video") for sample in range(200)])
    assert many.mean().item() == pytest.approx(0.5, abs=0.01) and many.var().item() == pytest.approx(1 / 12, abs=0.003)


def test_a_clip_is_shown_with_all_its_conditions_and_its_past_as_the_history_says(
    make_config: MakeConfig, world: World, tmp_path: Path
):
    config = make_config(tmp_path / "run", validation={"every": 1})
    training, _, _ = made(config, world)
    passes = repeated(read_clips(config, training_manifest(config.data), training.model.config)[0])
    clean = Streams(passes.video, training.model.normalize_structure(passes.structure))
    shown = {history: show_held_out(passes, clean, history) for history in HISTORIES}
    for one in shown.values():
        assert torch.equal(one.audio, passes.audio) and passes.audio.any()
        assert torch.equal(one.reference_latent, passes.reference_latent) and passes.reference_latent.any()
        for noisy, sigma, noise, learnt, known in zip(one.noisy, one.sigma, one.noise, one.learnt, clean):
            assert torch.equal(noisy[~learnt], known[~learnt]) and torch.equal(learnt, sigma > 0)
            assert not torch.equal(noise[0], noise[1]), "each pass has noise of its own"
    for one, other in zip(shown["independent"].noise, shown["clean_past"].noise):
        assert torch.equal(one, other), "histories differ in nothing else"
    assert shown["independent"].history is None and shown["independent"].learnt.video.all()
    past = shown["teacher_forcing"].history
    assert past is not None and torch.equal(past.video, clean.video) and not past.sigma_video.any()


# -------------------- the clips


def test_clips_are_the_first_stored_and_begin_at_their_start(
    make_config: MakeConfig, dataset_at: Callable[..., Path], tmp_path: Path
):
    root = dataset_at(tmp_path / "data", train=8, val=1)
    shutil.rmtree(root / "val")
    shutil.copytree(dataset_at(tmp_path / "long", train=1, val=3, frames=(17,)) / "val", root / "val")
    config = make_config(tmp_path / "run", data={"root": str(root)}, validation={"every": 1, "clips": 2})
    manifest = training_manifest(config.data)
    model = begin.build_model(config).config
    clips = read_clips(config, manifest, model)
    samples = list(iter_samples(root / "val", video=False))
    assert [clip.keys for clip in clips] == [[sample.key] for sample in samples[:2]]
    for clip, sample in zip(clips, samples):
        assert clip.anchored.all() and clip.video.shape[1] == 3, "as long as training's, which are shorter"
        assert torch.equal(clip.video[0], sample.tensors["video_latent"][:3].float())
        assert torch.equal(clip.structure[0], to_slots(sample.tensors["structure"][:9]))
    other = read_clips(config.model_copy(update={"seed": 9}), manifest, model)
    assert [clip.sample_ids for clip in other] == [clip.sample_ids for clip in clips]
    assert all(torch.equal(a.reference_latent, b.reference_latent) for a, b in zip(clips, other))


def test_with_buckets_each_clip_fills_the_longest_it_can(make_config: MakeConfig, mixed: Path, tmp_path: Path):
    data = {"root": str(mixed), "buckets": [3, 5]}
    config = make_config(tmp_path / "run", data=data, validation={"every": 2}, optim={"steps": 2, "warmup": 1})
    clips = read_clips(config, training_manifest(config.data), begin.build_model(config).config)
    assert sorted(clip.video.shape[1] for clip in clips) == [3, 3, 5]
    train(config)
    assert [line["step"] for line in held_out(config.directory)] == [2]


def test_fewer_clips_than_asked_for_are_told_and_measured(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    few = make_config(tmp_path / "few", validation={"every": 2}, optim={"steps": 2, "warmup": 1})
    train(few)
    told = [line for line in capsys.readouterr().out.splitlines() if "validation.clips=16" in line]
    assert len(told) == 1 and "gives 3: all of them" in told[0]
    enough = make_config(tmp_path / "all", validation={"every": 2, "clips": 3}, optim={"steps": 2, "warmup": 1})
    train(enough)
    assert "validation.clips" not in capsys.readouterr().out
    assert held_out(few.directory) == held_out(enough.directory)


def test_held_out_clips_are_never_left_out(make_config: MakeConfig, dataset: Path, tmp_path: Path):
    """With another clip in the place of a damaged one, the figures of two runs would not be of the same clips."""
    root = Path(shutil.copytree(dataset, tmp_path / "data"))
    shard = sorted((root / "val").glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 3])
    data = {"root": str(root), "on_error": "skip"}
    config = make_config(tmp_path / "run", data=data, validation={"every": 1}, optim={"steps": 1, "warmup": 0})
    with pytest.raises(UserError, match=rf"{shard.name}.* or set validation\.every=0"):
        train(config)
    assert not held_out(config.directory)


@pytest.mark.parametrize(("lacks", "said"), [("flame", "FLAME vectors"), ("text_features", "text features")])
def test_held_out_clips_that_lack_what_training_reads_are_told(
    make_config: MakeConfig, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str, said: str
):
    config = make_config(tmp_path / "run", validation={"every": 5})
    manifest, model = training_manifest(config.data), begin.build_model(config).config
    whole = list(clips.stored(config.data, "val"))
    for sample in whole:
        sample.tensors.pop(lacks, None)
    monkeypatch.setattr(clips, "stored", lambda *_: iter(whole))
    reads = replace(model, text_dim=8, text_encoder="umt5") if lacks == "text_features" else model
    with pytest.raises(UserError, match=rf"val-0000 holds no {said}.*set validation\.every=0"):
        read_clips(config, manifest, reads)
    if lacks == "flame":
        without = config.objective.model_copy(update={"flame": FlameLossConfig(weight=0)})
        assert len(read_clips(config.model_copy(update={"objective": without}), manifest, model)) == len(whole)


def test_a_dataset_without_held_out_clips_is_told_before_work_begins(
    make_config: MakeConfig, dataset: Path, tmp_path: Path
):
    root = tmp_path / "data"
    shutil.copytree(dataset / "train", root / "train")
    config = make_config(tmp_path / "run", data={"root": str(root)}, validation={"every": 5})
    with pytest.raises(UserError, match=r"validation\.every=5 .*val.* set validation\.every=0"):
        preflight(config)
    preflight(make_config(tmp_path / "run", data={"root": str(root)}))


def test_held_out_clips_that_are_too_short_are_told(
    make_config: MakeConfig, dataset_at: Callable[..., Path], tmp_path: Path
):
    root = dataset_at(tmp_path / "data", train=8, val=1, frames=(17,))
    shutil.rmtree(root / "val")
    shutil.copytree(dataset_at(tmp_path / "short", train=1, val=3) / "val", root / "val")
    config = make_config(tmp_path / "run", data={"root": str(root)}, validation={"every": 5})
    with pytest.raises(UserError, match=r"3 latent frames, and training takes 5"):
        preflight(config)
    preflight(make_config(tmp_path / "run", data={"root": str(root), "num_frames": 3}, validation={"every": 5}))


def test_shards_that_no_measured_clip_lies_in_do_not_count():
    shards = [SimpleNamespace(count=count) for count in (2, 3, 1)]
    found = [[shard.count for shard in clips._first(shards, wanted)] for wanted in (1, 2, 3, 9)]  # type: ignore[arg-type]
    assert found == [[2], [2], [2, 3], [2, 3, 1]]


def test_a_corpus_that_is_still_to_be_made_is_checked_by_its_description(make_config: MakeConfig, tmp_path: Path):
    synth = {"clips": 8, "val_clips": 2, "frames": 33, "val_frames": 9, "size": 32}
    data = {"root": str(tmp_path / "none"), "synth": synth}
    with pytest.raises(UserError, match=r"3 latent frames, and training takes 9"):
        preflight(make_config(tmp_path / "run", data=data, validation={"every": 5}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"histories": []}, "histories"),
        ({"histories": ["independent", "independent"]}, "name each history once"),
        ({"histories": ["error_recycling"]}, "histories"),
        ({"clips": 0}, "clips"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    make_config: MakeConfig, tmp_path: Path, changes: dict[str, Any], said: str
):
    with pytest.raises(UserError, match=said):
        make_config(tmp_path / "run", validation=changes)


# -------------------- the figures


def test_names_and_the_one_number_for_the_whole():
    sums = torch.zeros(2, 2, BUCKETS, 2, dtype=torch.float64)  # two histories; video, structure
    sums[0, 0, 1] = torch.tensor([6.0, 3.0])
    sums[0, 0, 2] = torch.tensor([4.0, 1.0])
    sums[1, 0, 1] = torch.tensor([5.0, 1.0])
    sums[:, 1, 0] = torch.tensor([8.0, 2.0])
    assert figures(sums, ("independent", "clean_past"), ("video", "structure")) == {
        "val/loss": 3.75 + 0.5 * 4.0,
        "val/independent/loss/video": 2.5,
        "val/independent/sigma/video/0.25-0.50": 2.0,
        "val/independent/sigma/video/0.50-0.75": 4.0,
        "val/independent/loss/structure": 4.0,
        "val/independent/sigma/structure/0.00-0.25": 4.0,
        "val/clean_past/loss/video": 5.0,
        "val/clean_past/sigma/video/0.25-0.50": 5.0,
        "val/clean_past/loss/structure": 4.0,
        "val/clean_past/sigma/structure/0.00-0.25": 4.0,
        "val/loss/video": 3.75,
        "val/loss/structure": 4.0,
    }


def test_a_long_clip_counts_what_a_short_one_does():
    sums = torch.zeros(3, 1, 2, BUCKETS, 2, dtype=torch.float64)
    sums[0, 0, :] = torch.tensor([2.0, 1.0])  # 4 frames, mean 2
    sums[1, 0, :] = torch.tensor([24.0, 6.0])  # 24 frames, mean 4; the third counts nothing: its mouth is not seen
    found = figures(alike(sums).sum(dim=0), ("independent",), ("video", "structure"))
    assert found["val/independent/loss/video"] == 3.0
    assert {found[name] for name in found if "sigma" in name} == {3.0}


def test_statistics_that_are_not_the_dataset_s_are_told(make_config: MakeConfig, dataset: Path, tmp_path: Path):
    config = make_config(tmp_path / "run")
    model, manifest = begin.build_model(config), training_manifest(config.data)
    set_statistics(model, manifest)
    assert own_statistics_note(model, manifest) is None
    mean, std = model.structure_mean.clone(), model.structure_std.clone()
    for other in ((mean, 10 * std), (mean + 0.1 * std, std)):
        model.set_structure_statistics(*other)
        note = own_statistics_note(model, manifest)
        assert note is not None and "compare val/loss" in note


def settled(training: TrainState) -> None:
    """Averages that are other than the parameters."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for average in training.average.state_dict().values():
            values = average.to_local()  # type: ignore[attr-defined]
            values.add_(0.05 * torch.randn(values.shape, generator=generator))


@pytest.mark.parametrize("group", ["model", "block"])
def test_the_averaged_weights_are_measured_and_everything_is_left_as_it_was(
    make_config: MakeConfig, world: World, tmp_path: Path, group: str
):
    config = make_config(
        tmp_path / "run", validation={"every": 1, "histories": HISTORIES}, sharding={"group": group}, **EXACT
    )
    training, objective, validation = made(config, world)
    settled(training)
    before = [value.full_tensor().clone() for tensors in two_kinds(training) for value in tensors]
    found = validation(training)
    after = [value.full_tensor() for tensors in two_kinds(training) for value in tensors]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))

    whole = state.averaged(training, world)
    assert whole is not None
    exported, _ = whole
    for history in HISTORIES:
        means = []
        for clip in read_clips(config, training_manifest(config.data), exported.config):
            passes = repeated(clip)
            clean = Streams(passes.video, exported.normalize_structure(passes.structure))
            shown = show_held_out(passes, clean, history)
            with torch.no_grad():
                term = objective.terms(objective.answer(exported, passes, shown))["video"]
            means.append(float(term.error_BT[shown.sigma.video > 0].double().mean()))
        assert found[f"val/{history}/loss/video"] == pytest.approx(sum(means) / len(means), rel=1e-5)


def two_kinds(training: TrainState) -> tuple[list[Any], list[Any]]:
    return list(training.model.parameters()), list(training.average.state_dict().values())


def test_runs_of_other_seeds_and_objectives_are_measured_alike(make_config: MakeConfig, world: World, tmp_path: Path):
    first = make_config(tmp_path / "first", validation={"every": 1}, optim={"steps": 2, "warmup": 1})
    train(first)
    start = {"model": {"start_from": str(tmp_path / "first" / "model"), "overrides": {}}}

    def measured(name: str, **changes: Any) -> dict[str, float]:
        config = make_config(tmp_path / name, validation={"every": 1}, **changes)
        config = config.model_copy(update={"model": config.model.model_copy(update=start["model"])})
        return made(config, world)[2](made(config, world)[0])

    one = measured("one", seed=1, **EXACT)
    objective = {"video_shift": 3.0, "structure_weight": 2.0, "drop_audio": 1.0, "start_clean": 1.0}
    other = measured("other", seed=2, objective=objective, optim={"steps": 7}, **EXACT)
    assert one == other
    assert {name.rsplit("/", 1)[-1] for name in one if name.startswith("val/clean_past/sigma/structure/")} == {
        "0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00",
    }  # fmt: skip


# -------------------- what training sees of it


def test_a_kill_after_the_last_checkpoint_does_not_cost_the_last_measurement(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = make_config(
        tmp_path / "run", validation={"every": 100}, optim={"steps": 2, "warmup": 1}, checkpoint={"milestones": [2]}
    )

    def killed(*_: object) -> None:
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr("df_train.saving.export.Milestones.__call__", killed)
        with pytest.raises(SystemExit):
            train(config)
    train(config)
    assert [line["step"] for line in held_out(config.directory)] == [2]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sharding": {"group": "block"}, "data": {"accumulate": 2}},
        {"objective": {"history": {"mode": "error_recycling", "error_bank": 8}}},
        {"precision": {"bf16": "on"}},
    ],
    ids=["model", "block", "error_recycling", "bf16"],
)
def test_training_is_the_same_to_the_bit_with_and_without(
    make_config: MakeConfig, tmp_path: Path, changes: dict[str, Any]
):
    settings = {"optim": {"steps": 5, "warmup": 1}, "log": {"every": 2}, **changes}
    without = make_config(tmp_path / "without", **settings)
    with_it = make_config(tmp_path / "with", validation={"every": 2, "histories": HISTORIES}, **settings)
    for config in (without, with_it):
        train(config)
    assert [line["step"] for line in held_out(with_it.directory)] == [2, 4, 5]
    assert not held_out(without.directory)
    assert trained(with_it.directory) == trained(without.directory) == lines_of(without.directory)
    weights = [config.directory / "model" / "model.safetensors" for config in (without, with_it)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_that_is_interrupted_and_goes_on_measures_what_the_straight_one_does(
    make_config: MakeConfig, tmp_path: Path, interrupted_after: Interrupted
):
    settings = {"optim": {"steps": 10, "warmup": 2}, "log": {"every": 4}, "validation": {"every": 3}}
    straight, broken = (make_config(tmp_path / name, **settings) for name in ("straight", "broken"))
    train(straight)
    with interrupted_after(6, 7):
        assert [train(broken).stop for _ in range(2)] == [engine.Stop.INTERRUPTED] * 2
    assert train(broken).stop is engine.Stop.DONE
    assert [line["step"] for line in held_out(straight.directory)] == [3, 6, 9, 10]
    assert lines_of(broken.directory) == lines_of(straight.directory)
    weights = [config.directory / "model" / "model.safetensors" for config in (straight, broken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_that_ends_by_its_time_limit_measures_the_model_it_exports(make_config: MakeConfig, tmp_path: Path):
    config = make_config(tmp_path / "run", max_minutes=1e-6, validation={"every": 5})
    assert train(config).stop is engine.Stop.TIME
    assert [line["step"] for line in held_out(config.directory)] == [1]


def test_its_time_is_none_of_a_steps(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measure = Validation.__call__

    def slow(self: Validation, training: TrainState) -> dict[str, float]:
        time.sleep(1.0)
        return measure(self, training)

    monkeypatch.setattr(Validation, "__call__", slow)
    config = make_config(tmp_path / "run", validation={"every": 1}, optim={"steps": 3, "warmup": 1}, log={"every": 3})
    train(config)
    (line,) = (line for line in read_log(config.directory / "metrics.jsonl") if "loss" in line)
    assert line["time/step_seconds"] < 0.7


# -------------------- several processes


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


TWO = """
import json, sys, torch
torch.set_num_threads(1)
from df_models.settings import load_config
from df_train.config import TrainConfig
from df_train.data.dataset import training_manifest
from df_train.processes.distributed import open_world
from df_train.run import build
from df_train.validation.clips import read_clips
from df_train.validation.measure import Validation
from pathlib import Path

config = load_config(TrainConfig, Path(sys.argv[1]))
with open_world("cpu") as world:
    manifest = training_manifest(config.data)
    training, objective, _ = build(config, world, manifest)
    clips = read_clips(config, manifest, training.model.config)
    found = Validation(clips, config.validation.histories, objective, world)(training)
    Path(f"{sys.argv[2]}-{world.rank}.json").write_text(json.dumps(found))
"""


def test_two_processes_measure_what_one_does_to_the_bit(make_config: MakeConfig, world: World, tmp_path: Path):
    """Three clips, of which one process has two."""
    config = make_config(tmp_path / "run", validation={"every": 1, "clips": 3, "histories": HISTORIES}, **EXACT)
    training, _, validation = made(config, world)
    alone = validation(training)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "two.py"), str(tmp_path / "config.yaml"), str(tmp_path / "found")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in (0, 1)] == [alone, alone]
