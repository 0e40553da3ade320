"""Crops that begin within their stored clip: what they are shown as, and what they are not asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.format.shards import iter_samples
from df_data.reading import ShardReader
from df_data.reading.batch import Batch
from df_models import DualForce
from df_models.flow import ErrorBank
from df_models.model.dualforce import Velocity
from df_models.time import pool_audio, to_slots
from df_train.config import ObjectiveConfig, TrainConfig
from df_train.data.crops import begun_anew
from df_train.noising import Banks, Streams, history_config, show
from df_train.objective import FlameScale, Objective, flow_terms, total_loss

LENGTH = 3


@pytest.fixture(scope="module")
def batch(mixed: Path) -> Batch:
    """Crops of 3 latent frames, some at their clip's start and some not."""
    found = next(iter(ShardReader(mixed / "train", batch_size=12, seed=1, num_frames=LENGTH, start="marked")))
    assert 0 < int(found.anchored.sum()) < len(found)
    return found


def test_a_crop_has_the_slots_of_the_clip_that_begins_at_its_first_frame(batch: Batch, mixed: Path):
    samples = {sample.key: sample.tensors for sample in iter_samples(mixed / "train", video=False)}
    begun = begun_anew(batch)
    assert begun.flame is not None
    for row, (key, start) in enumerate(zip(batch.keys, batch.start.tolist())):
        pixels = slice(4 * start, 4 * start + 4 * LENGTH - 3)
        tensors = samples[key]
        assert torch.equal(begun.structure[row], to_slots(tensors["structure"][pixels]))
        assert torch.equal(begun.flame[row], to_slots(tensors["flame"][pixels]))
        audio = pool_audio(tensors["audio"].float(), "concat")
        assert torch.equal(begun.audio[row], to_slots(audio[pixels]))
        assert torch.equal(begun.video[row], tensors["video_latent"][start : start + LENGTH].float())


def test_anchored_clips_are_left_as_they_are(batch: Batch, dataset: Path):
    begun = begun_anew(batch)
    assert torch.equal(begun.structure[batch.anchored], batch.structure[batch.anchored])
    assert not torch.equal(begun.structure, batch.structure)
    whole = next(iter(ShardReader(dataset / "train", batch_size=3, seed=0)))
    assert begun_anew(whole) is whole


def fresh_banks(batch: Batch) -> Banks:
    return Banks(ErrorBank(tuple(batch.video.shape[2:]), len(batch)), ErrorBank((4, 70), len(batch)))


def shown_of(batch: Batch, **changes: Any):
    objective = ObjectiveConfig(**changes)
    batch = begun_anew(batch)
    clean = Streams(batch.video, batch.structure)
    return show(batch, clean, objective, history_config(objective, 0.7), None, seed=5, step=3)


def test_their_first_latent_is_neither_a_clean_start_nor_an_image(batch: Batch):
    tricked = replace(batch, reference_frame=torch.zeros_like(batch.reference_frame))
    shown = shown_of(tricked, history={"mode": "independent"}, start_clean=1.0, drop_reference=0.0)
    assert torch.equal(shown.sigma.video[:, 0] == 0, batch.anchored)
    assert torch.equal(shown.reference_frame, torch.where(batch.anchored, 0, -1))
    assert not shown.learnt.video[:, 0].any(), "given clean, or not to be learnt"
    assert shown.learnt.video[:, 1:].all() and shown.learnt.structure.all()


def test_their_first_latent_is_shown_as_past_at_its_own_level(batch: Batch):
    shown = shown_of(batch, history={"mode": "independent"}, start_clean=0.0)
    level = shown.sigma.video[:, 0, None, None, None]
    assert (level > 0).all()
    torch.testing.assert_close(shown.noisy.video[:, 0], torch.lerp(batch.video[:, 0], shown.noise.video[:, 0], level))


def test_the_loss_does_not_know_their_first_latent(batch: Batch):
    """Whatever the target and the answer are there, neither loss nor gradient changes; in structure they do."""
    shown = shown_of(batch, history={"mode": "independent"}, start_clean=0.0)
    crops = ~batch.anchored
    torch.manual_seed(0)
    video = torch.randn_like(batch.video).requires_grad_()
    structure = torch.randn_like(batch.structure).requires_grad_()
    weights = {"video": 1.0, "mouth": 2.0, "structure": 0.5}

    def loss_of(shown: Any) -> torch.Tensor:
        return total_loss(flow_terms(Velocity(video, structure), shown, batch.mouth_mask), weights)

    loss = loss_of(shown)
    loss.backward()
    assert video.grad is not None and structure.grad is not None
    assert not video.grad[crops, 0].any()
    assert video.grad[~crops, 0].any() and video.grad[crops, 1].any()
    assert structure.grad[crops, 0].any()
    changed = shown.clean.video.clone()
    changed[crops, 0] += 7.0
    assert loss_of(replace(shown, clean=shown.clean._replace(video=changed))).item() == loss.item()
    changed[~crops, 0] += 7.0
    assert loss_of(replace(shown, clean=shown.clean._replace(video=changed))).item() != loss.item()


def test_the_error_bank_never_keeps_their_first_latent(batch: Batch):
    banks = fresh_banks(batch)
    shown = shown_of(batch, history={"mode": "independent"}, start_clean=0.0)
    clean = Streams(torch.zeros_like(batch.video), torch.zeros_like(batch.structure))
    guess = Streams(batch.video.clone().fill_(1.0), batch.structure.clone().fill_(1.0))
    guess.video[:, 0] = 9.0
    guess.structure[:, 0] = 9.0
    level = torch.full(batch.video.shape[:2], 0.9)
    level[:, 0] = 0.4
    banks.record(guess, replace(shown, clean=clean, sigma=Streams(level, level)))
    assert torch.equal(banks.video.errors.amax(dim=(1, 2, 3)), torch.where(batch.anchored, 9.0, 1.0))
    assert (banks.structure.errors == 9.0).all(), "its structure is learnt, and so are its errors"


@pytest.mark.parametrize("mode", ["clean_past", "error_recycling"])
def test_an_objective_takes_them(make_config: Callable[..., TrainConfig], tiny_model: Any, batch: Batch, mode: str):
    torch.manual_seed(0)
    model = DualForce.from_preset("quickstart", **tiny_model)
    config = make_config(Path("run"), objective={"history": {"mode": mode}})
    objective = Objective(config, model.config, FlameScale(torch.zeros(159), torch.full((159,), 0.1)))
    banks = None
    if mode == "error_recycling":
        banks = fresh_banks(batch)
    losses = [objective(model, batch, step, banks) for step in range(2)]
    losses[-1].total.backward()
    assert all(torch.isfinite(loss.total) for loss in losses)
    assert not losses[-1].terms["video"].counts_BT[~batch.anchored, 0].any()
    assert losses[-1].terms["flame"].counts_BT.all()
    structure = batch.structure.clone()
    structure[~batch.anchored, 0, :3] += 5.0
    hidden = objective(model, replace(batch, structure=structure), 0, None if banks is None else fresh_banks(batch))
    assert hidden.total.item() == losses[0].total.item(), "slots that the clip would not have are not looked at"
