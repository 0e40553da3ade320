"""A share of the clips hears only a random part of the audio ahead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.reading import ShardReader
from df_data.reading.batch import Batch
from df_infer.config import RolloutConfig
from df_infer.rollout import latency_note
from df_infer.run_dir import Trained
from df_models import DualForce
from df_models.errors import UserError
from df_train.config import TrainConfig
from df_train.hearing import slots_ahead
from df_train.objective import FlameScale, Losses, Objective
from df_train.preflight import preflight
from df_train.run import train

MakeConfig = Callable[..., TrainConfig]


def test_every_part_comes_equally_often_in_the_share_and_all_elsewhere():
    ahead = slots_ahead(0.5, 4, list(range(10_000)), seed=1, step=2)
    shares = ahead.bincount(minlength=5) / len(ahead)
    assert shares.tolist() == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.6], abs=0.01)
    assert slots_ahead(0.0, 4, [1, 2], seed=1, step=2).tolist() == [4, 4]


def test_a_clip_hears_the_same_in_any_batch_and_other_audio_at_another_step():
    ids = list(range(50))
    whole, part = (slots_ahead(1.0, 4, some, seed=1, step=2) for some in (ids, [41, 7]))
    assert torch.equal(whole[[41, 7]], part)
    assert not torch.equal(whole, slots_ahead(1.0, 4, ids, seed=1, step=3))


def test_samples_that_hear_less_than_the_model_is_trained_for_are_told(model: DualForce):
    always, less = Trained(shorten_audio=0), RolloutConfig(audio_future=0)
    assert latency_note(model.config, RolloutConfig(), always) is None
    note = latency_note(model.config, less, always)
    assert note is not None and f"always hears {model.config.audio_future} slots ahead" in note
    for learnt in (Trained(shorten_audio=0.5), Trained()):
        assert latency_note(model.config, less, learnt) is None
    deaf = replace(model.config, audio_dim=0)
    assert latency_note(deaf, less, always) is None
    student = Trained(distilled=True, shorten_audio=0, audio_future=2)
    assert latency_note(model.config, RolloutConfig(audio_future=2), student) is None
    note = latency_note(model.config, RolloutConfig(), student)
    assert note is not None and "always hears 2 slots ahead; a student learns one" in note
    for trained in (Trained(), student, always):
        with pytest.raises(UserError, match="hears 4 slots ahead"):
            latency_note(model.config, RolloutConfig(audio_future=9), trained)


@pytest.fixture(scope="module")
def model(tiny_model: dict[str, int], open_gates: Callable[[DualForce], None]) -> DualForce:
    torch.manual_seed(0)
    built = DualForce.from_preset("quickstart", **tiny_model)
    open_gates(built)
    return built


@pytest.fixture
def batch(dataset: Path) -> Batch:
    return next(iter(ShardReader(dataset / "train", batch_size=12, seed=0)))


def losses(make_config: MakeConfig, model: DualForce, batch: Batch, **objective: Any) -> Losses:
    config = make_config(Path("run"), objective={"drop_audio": 0.0, **objective})
    flame = FlameScale(torch.zeros(159), torch.full((159,), 0.1))
    return Objective(config, model.config, flame)(model, batch, 3, None)


@pytest.mark.parametrize("mode", ["independent", "teacher_forcing"])
def test_only_clips_whose_future_is_shorter_have_other_losses(
    make_config: MakeConfig, model: DualForce, batch: Batch, mode: str
):
    history = {"history": {"mode": mode}}
    off, on = (losses(make_config, model, batch, shorten_audio=share, **history) for share in (0.0, 0.6))
    full = slots_ahead(0.6, 4, batch.sample_ids.tolist(), seed=0, step=3) == 4
    assert full.any() and not full.all()
    changed = (on.terms["video"].error_BT != off.terms["video"].error_BT).any(dim=1)
    assert torch.equal(changed, ~full)
    none = losses(make_config, model, batch, shorten_audio=1e-9, **history)
    assert torch.equal(none.total, off.total)


def test_what_cannot_be_shortened_is_told(make_config: MakeConfig, tiny_model: dict[str, int], tmp_path: Path):
    deaf = {"model": {"overrides": {**tiny_model, "audio_future": 0}}}
    with pytest.raises(UserError, match=r"shorten_audio .*audio_future=0"):
        preflight(make_config(tmp_path / "run", objective={"shorten_audio": 0.5}, **deaf))
    with pytest.raises(UserError, match=r"rollout\.audio_future=1, but the model hears 0"):
        preflight(make_config(tmp_path / "run", rollout={"audio_future": 1}, **deaf))


def test_a_run_that_is_interrupted_goes_on_to_the_bit(make_config: MakeConfig, tmp_path: Path):
    def until(name: str, steps: int) -> TrainConfig:
        optim = {"steps": steps, "warmup": 1, "floor": 1.0}
        return make_config(tmp_path / name, optim=optim, objective={"shorten_audio": 0.5})

    train(until("straight", 4))
    train(until("broken", 2))
    train(until("broken", 4), "resume")
    weights = [tmp_path / name / "model" / "model.safetensors" for name in ("straight", "broken")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
