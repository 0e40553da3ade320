"""What the log says of speed: counted, measured, and consistent."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.reading import ShardReader
from df_infer.run_log import read_log
from df_models import DualForce
from df_models.attention.masks import FrameLayout
from df_models.model.flops import training_flops
from df_models.model.presets import preset_config
from df_models.time import SLOTS
from df_train import engine, run
from df_train.config import TrainConfig
from df_train.figures import speed
from df_train.figures.meter import LossMeter
from df_train.run import train
from df_train.saving import checkpoint

MakeConfig = Callable[..., TrainConfig]
CLIPS, FRAMES, TOKENS, FEATURES = 4, 3, 1, 16


def lines(make_config: MakeConfig, path: Path, **changes: Any) -> tuple[TrainConfig, list[dict[str, float]]]:
    config = make_config(path, optim={"steps": 4, "warmup": 1}, log={"every": 2}, checkpoint={"every": 2}, **changes)
    train(config)
    return config, read_log(config.directory / "metrics.jsonl")


@pytest.mark.parametrize("mode", ["independent", "teacher_forcing"])
def test_tokens_and_operations_are_those_of_the_shapes(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
):
    monkeypatch.setattr(speed, "own_rate", lambda device, dtype: 1e9)
    config, found = lines(make_config, tmp_path / "run", objective={"history": {"mode": mode}})
    model = DualForce.from_pretrained(config.directory / "model").config
    layout = FrameLayout.teacher_forcing(FRAMES) if mode == "teacher_forcing" else FrameLayout.clip(FRAMES)
    operations = CLIPS * training_flops(model, layout, TOKENS, features=FEATURES, flame=True)
    for line in found:
        step = line["time/step_seconds"]
        assert line["time/tokens_per_second"] * step == pytest.approx(CLIPS * len(layout) * (TOKENS + SLOTS))
        assert line["time/tflops_per_process"] * 1e12 * step == pytest.approx(operations)
        assert line["time/matmul_share"] * 1e9 == pytest.approx(line["time/tflops_per_process"] * 1e12)
        assert 0.1 < line["time/memory_peak_gib"] < 100
        assert "time/peak_share" not in line and "time/memory_reserved_gib" not in line


def test_the_mask_of_given_structure_is_work_only_where_fields_are_given(dataset: Path, tiny_model: dict[str, int]):
    batch = next(iter(ShardReader(dataset / "train", batch_size=2, seed=0)))
    plain, told = (preset_config("quickstart", **tiny_model, structure_known=known) for known in (False, True))
    without, idle, used = (
        speed.Work(model, history=False, flame=True, known=known).of(batch)[1]
        for model, known in ((plain, False), (told, False), (told, True))
    )
    assert without == idle < used


def test_the_rate_is_measured_once_and_no_random_number_is_taken():
    speed.own_rate.cache_clear()
    before = torch.get_rng_state()
    began = time.perf_counter()
    rate = speed.own_rate(torch.device("cpu"), torch.float32)
    assert rate > 1e8 and speed.own_rate(torch.device("cpu"), torch.float32) == rate
    assert time.perf_counter() - began < 60
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("every", [1, 3])
def test_the_time_of_a_device_that_is_not_waited_for_counts(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
):
    """A stand-in for a GPU: a step is only enqueued, and is waited for where figures are read or a batch is copied."""
    pending = [0.0]

    def wait() -> None:
        time.sleep(pending[0])
        pending[0] = 0.0

    read, batch, step = LossMeter.read, engine.Trainer._next_batch, engine.Trainer.step

    def enqueued(self: engine.Trainer) -> None:
        step(self)
        pending[0] = 0.1

    monkeypatch.setattr(LossMeter, "read", lambda self, world: (wait(), read(self, world))[1])
    monkeypatch.setattr(engine.Trainer, "_next_batch", lambda self: (wait(), batch(self))[1])
    monkeypatch.setattr(engine.Trainer, "step", enqueued)
    config = make_config(
        tmp_path / "run", optim={"steps": 6, "warmup": 1}, log={"every": every}, checkpoint={"every": 100}
    )
    train(config)
    found = read_log(config.directory / "metrics.jsonl")
    steps = every * sum(line["time/step_seconds"] for line in found)
    assert 60 * found[-1]["time/minutes"] == pytest.approx(steps, abs=0.1), "0.6 s of the device are not lost"


def test_saves_count_and_samples_do_not(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speed, "own_rate", lambda device, dtype: 1e9)
    save, naps = checkpoint.save, 0.5
    monkeypatch.setattr(checkpoint, "save", lambda *args, **named: (time.sleep(naps), save(*args, **named))[1])
    monkeypatch.setattr(run.Sampler, "__call__", lambda self, training: time.sleep(3 * naps))
    _, found = lines(make_config, tmp_path / "run", sample={"every": 2})
    assert found[0]["time/save_seconds"] == 0.0
    assert found[1]["time/save_seconds"] >= naps / 2
    assert found[1]["time/step_seconds"] >= found[1]["time/save_seconds"]
    whole = 60 * (found[1]["time/minutes"] - found[0]["time/minutes"])
    assert found[1]["time/step_seconds"] - found[1]["time/save_seconds"] == pytest.approx(whole / 2, abs=naps / 2)
