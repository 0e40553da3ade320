from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.reading import ShardReader
from df_data.reading.batch import Batch
from df_models import DualForce
from df_models.encoders import load_audio_encoder, random_tiny_vae
from df_models.errors import UserError
from df_models.flow import ErrorBank, velocity_target
from df_models.model.dualforce import Velocity
from df_train.config import ObjectiveConfig, TrainConfig
from df_train.noising import Banks, Shown, Streams, history_config, show
from df_train.objective import LOSSES, FlameScale, Objective, flow_terms, inverse_spread, total_loss
from df_train.sync.expert import ExpertConfig, SyncExpert, write_expert


@pytest.fixture(scope="module")
def model(tiny_model: dict[str, int]) -> DualForce:
    torch.manual_seed(0)
    return DualForce.from_preset("quickstart", **tiny_model)


@pytest.fixture
def batch(dataset: Path) -> Batch:
    return next(iter(ShardReader(dataset / "train", batch_size=6, seed=0)))


def shown_of(batch: Batch, *, step: int = 3, banks: Banks | None = None, **changes: Any) -> Shown:
    objective = ObjectiveConfig(**changes)
    clean = Streams(batch.video, batch.structure)
    return show(batch, clean, objective, history_config(objective, 0.7), banks, seed=5, step=step)


def rows(batch: Batch, order: list[int]) -> Batch:
    tensors = {name: value[order] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return replace(batch, keys=[batch.keys[i] for i in order], **tensors)


def test_a_clip_is_shown_the_same_in_any_batch(batch: Batch):
    whole = shown_of(batch, drop_audio=0.5, drop_reference=0.5)
    part = shown_of(rows(batch, [4, 1]), drop_audio=0.5, drop_reference=0.5)
    for name in ("noisy", "sigma", "learnt", "noise"):
        for one, two in zip(getattr(whole, name), getattr(part, name)):
            assert torch.equal(one[[4, 1]], two)
    assert torch.equal(whole.audio[[4, 1]], part.audio)
    assert torch.equal(whole.reference_frame[[4, 1]], part.reference_frame)


def test_another_step_shows_other_noise(batch: Batch):
    one, two = shown_of(batch, step=3), shown_of(batch, step=4)
    assert not torch.equal(one.noise.video, two.noise.video)
    assert not torch.equal(one.sigma.video, two.sigma.video)


def test_noisy_lies_between_clean_and_noise_at_its_own_level(batch: Batch):
    shown = shown_of(batch)
    level = shown.sigma.video[:, :, None, None, None]
    torch.testing.assert_close(shown.noisy.video, (1 - level) * shown.clean.video + level * shown.noise.video)
    level = shown.sigma.structure[:, :, None, None]
    torch.testing.assert_close(
        shown.noisy.structure, (1 - level) * shown.clean.structure + level * shown.noise.structure
    )


def test_frames_given_clean_are_clean_and_not_learnt(batch: Batch):
    shown = shown_of(batch, history={"mode": "clean_past", "clean_past_probability": 1.0}, start_clean=0.0)
    for sigma, learnt in zip(shown.sigma, shown.learnt):
        assert torch.equal(sigma == 0, ~learnt)
    assert not shown.learnt.video[:, 0].any()
    assert shown.learnt.video[:, -1].all()


def test_a_start_on_the_portrait_gives_only_the_first_video_frame_of_aligned_clips_clean(batch: Batch):
    shown = shown_of(batch, history={"mode": "independent"}, start_clean=1.0)
    aligned = batch.reference_frame == 0
    assert aligned.any() and not aligned.all()
    assert torch.equal(shown.learnt.video[:, 0], ~aligned)
    assert torch.equal(shown.sigma.video[:, 0] == 0, aligned)
    assert shown.learnt.video[:, 1:].all()
    assert shown.learnt.structure.all()
    assert (shown.sigma.structure[:, 0] > 0).all()


def test_dropped_conditions_are_zero_and_only_theirs(batch: Batch):
    shown = shown_of(batch, drop_audio=1.0, drop_reference=0.0)
    assert not shown.audio.any()
    assert torch.equal(shown.reference_latent, batch.reference_latent)
    shown = shown_of(batch, drop_audio=0.0, drop_reference=1.0)
    assert torch.equal(shown.audio, batch.audio)
    assert not shown.reference_latent.any() and not shown.reference_tokens.any()
    assert (shown.reference_frame == -1).all()


@pytest.mark.parametrize("mode", ["teacher_forcing", "error_recycling"])
def test_separate_history_is_the_past_at_its_own_level(batch: Batch, mode: str):
    banks = None
    if mode == "error_recycling":
        banks = Banks(ErrorBank(tuple(batch.video.shape[2:]), 4), ErrorBank((4, 70), 4))
        banks.video.add(torch.full_like(batch.video[:1, :1], 9.0), torch.zeros_like(batch.video[:1, :1]))
        banks.structure.add(torch.full_like(batch.structure[:1, :1], 9.0), torch.zeros_like(batch.structure[:1, :1]))
    settings = {"mode": mode, "context_noise_max": 0.0, "error_probability": 1.0}
    shown = shown_of(batch, banks=banks, history=settings)
    assert shown.history is not None
    added = 9.0 if mode == "error_recycling" else 0.0
    torch.testing.assert_close(shown.history.video, batch.video + added)
    torch.testing.assert_close(shown.history.structure, batch.structure + added)
    assert not shown.history.sigma_video.any()


def test_the_right_velocity_costs_nothing_and_errors_are_counted_where_they_are(batch: Batch):
    shown = shown_of(batch, history={"mode": "independent"}, start_clean=0.0)
    right = Velocity(*(velocity_target(c, n) for c, n in zip(shown.clean, shown.noise)))
    terms = flow_terms(right, shown, batch.mouth_mask)
    assert all(not term.error_BT.any() for term in terms.values())
    wrong = right.video.clone()
    wrong[1, 2] += 2.0
    terms = flow_terms(Velocity(wrong, right.structure), shown, batch.mouth_mask)
    assert terms["video"].error_BT[1, 2].item() == pytest.approx(4.0)
    assert terms["video"].error_BT.sum().item() == pytest.approx(4.0)
    assert terms["mouth"].error_BT[1, 2].item() == pytest.approx(4.0)
    assert not terms["structure"].error_BT.any()


def test_mouth_cells_weigh_one_plus_mouth_weight(batch: Batch):
    shown = shown_of(batch, history={"mode": "independent"}, start_clean=0.0)
    torch.manual_seed(0)
    answer = Velocity(torch.randn_like(batch.video), torch.zeros_like(batch.structure))
    terms = flow_terms(answer, shown, batch.mouth_mask)
    error = (answer.video - velocity_target(shown.clean.video, shown.noise.video)).square().mean(dim=2)
    expected = (error * (1 + 3 * batch.mouth_mask)).mean()
    total = total_loss(terms, {"video": 1.0, "mouth": 3.0})
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_frames_that_are_not_learnt_cost_nothing(batch: Batch):
    shown = shown_of(batch, history={"mode": "clean_past", "clean_past_probability": 1.0}, start_clean=0.0)
    answer = [velocity_target(c, n) for c, n in zip(shown.clean, shown.noise)]
    for stream, learnt in zip(answer, shown.learnt):
        stream[~learnt] += 100.0
    terms = flow_terms(Velocity(*answer), shown, batch.mouth_mask)
    assert total_loss(terms, {"video": 1.0, "mouth": 1.0, "structure": 1.0}).item() == 0.0


MakeConfig = Callable[..., TrainConfig]


def objective_of(make_config: MakeConfig, model: DualForce, **changes: Any) -> Objective:
    config = make_config(Path("run"), objective=changes)
    return Objective(config, model.config, FlameScale(torch.zeros(159), torch.full((159,), 0.1)))


@pytest.mark.parametrize("mode", ["independent", "clean_past", "teacher_forcing", "error_recycling"])
def test_every_history_mode_trains_every_part(make_config: MakeConfig, model: DualForce, batch: Batch, mode: str):
    objective = objective_of(make_config, model, history={"mode": mode})
    banks = None
    if mode == "error_recycling":
        banks = Banks(ErrorBank(tuple(batch.video.shape[2:]), 8), ErrorBank((4, 70), 8))
    for step in range(2):
        model.zero_grad()
        losses = objective(model, batch, step, banks)
        losses.total.backward()
        if losses.record is not None:
            losses.record(torch.tensor(0.0))
    assert torch.isfinite(losses.total)
    assert set(losses.terms) == {"video", "mouth", "structure", "flame"}
    for part in (model.video.head, model.structure.head, model.flame):
        assert part is not None
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())
    if banks is not None:
        assert len(banks.video) == len(banks.structure) == 8
        assert banks.video.errors.any()


def test_a_clip_of_half_the_weight_counts_half(make_config: MakeConfig, model: DualForce, batch: Batch):
    objective = objective_of(make_config, model)
    whole = objective(model, batch, 0, None)
    weight = torch.ones(len(batch))
    weight[2] = 0.5
    halved = objective(model, replace(batch, weight=weight), 0, None)
    for name, term in whole.terms.items():
        assert torch.equal(halved.terms[name].error_BT, term.error_BT)
        assert torch.equal(halved.terms[name].counts_BT[2], 0.5 * term.counts_BT[2])
        assert torch.equal(halved.terms[name].counts_BT[3], term.counts_BT[3])
    assert halved.total < whole.total


def test_the_flame_weight_falls_as_stated(make_config: MakeConfig, model: DualForce):
    schedule = {"weight": 0.1, "weight_end": 0.0, "decay_steps": 10}
    objective = objective_of(make_config, model, flame=schedule)
    assert [objective.weights(step)["flame"] for step in (0, 5, 10)] == pytest.approx([0.1, 0.05, 0.0])


def test_a_loss_that_is_switched_off_changes_nothing(make_config: MakeConfig, model: DualForce, batch: Batch):
    off = objective_of(make_config, model, structure_weight=0.0, flame={"weight": 0.0, "weight_end": 0.0})
    assert off.names == ("video", "mouth", "structure")
    losses = off(model, batch, 0, None)
    video = losses.terms["video"]
    assert losses.total.item() == pytest.approx((video.error_BT * video.counts_BT).mean().item())


def test_flame_without_a_head_or_data_is_an_error(make_config: MakeConfig, model: DualForce):
    config = make_config(Path("run"))
    with pytest.raises(UserError, match=r"objective\.flame\.weight"):
        Objective(config, model.config, None)


def test_constant_flame_entries_have_no_weight():
    spread = inverse_spread(FlameScale(torch.zeros(2), torch.tensor([0.0, 0.5])))
    assert spread.tolist() == [0.0, 2.0]


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained lip-sync expert whose window fits the random clips."""
    own = ("df-tiny", random_tiny_vae().sha256, "logmel", load_audio_encoder("logmel").sha256)
    config = ExpertConfig(16, 128, 1, 4, 1.75, 8, 8, "concat", *own)
    place = tmp_path_factory.mktemp("expert")
    write_expert(SyncExpert(config), place)
    return place


NOTHING: dict[str, Any] = {"video_weight": 0.0, "structure_weight": 0.0, "mouth_weight": 0.0, "flame": {"weight": 0.0}}
SWITCHES: dict[str, dict[str, Any]] = {
    "video": {"video_weight": 1.0},
    "mouth": {"video_weight": 1.0, "mouth_weight": 1.0},
    "structure": {"structure_weight": 1.0},
    "flame": {"flame": {"weight": 1.0}},
}
"""What weighs each loss of the list that has a setting of its own; the others are weighed by `extra`."""


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_can_be_switched_on_and_off_and_is_logged(
    make_config: MakeConfig, model: DualForce, batch: Batch, expert: Path, name: str
):
    switches = {**SWITCHES, "sync": {"sync": {"weight": 1.0, "expert": expert, "sigma_max": 1.0}}}
    on = {**NOTHING, **switches.get(name, {"extra": {name: 1.0}})}
    off = {**NOTHING, "structure_weight": 1e-9}
    without, with_it = (objective_of(make_config, model, **changes) for changes in (off, on))
    assert without.weights(0).get(name, 0.0) <= 1e-9 and with_it.weights(0)[name] > 0
    assert name in with_it.names and LOSSES[name].definition
    losses = with_it(model, batch, 0, None)
    term = losses.terms[name]
    assert term.error_BT.shape == term.counts_BT.shape == term.sigma_BT.shape == batch.video.shape[:2]
    assert losses.total > 0 and without(model, batch, 0, None).total < 1e-6


def test_a_loss_of_ones_own_is_one_entry(
    make_config: MakeConfig, model: DualForce, batch: Batch, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("df_train.objective.LOSSES", LOSSES.copy())
    runpy.run_path(str(Path(__file__).parents[3] / "examples" / "own_loss.py"), run_name="own_loss")
    plain, jittery = objective_of(make_config, model), objective_of(make_config, model, extra={"jitter": 0.5})
    assert "jitter" not in plain.names and jittery.names[-1] == "jitter"
    losses, before = jittery(model, batch, 0, None), plain(model, batch, 0, None)
    term = losses.terms["jitter"]
    assert (losses.total - before.total).item() == pytest.approx(0.5 * (term.error_BT * term.counts_BT).mean().item())
    with pytest.raises(UserError, match=r"objective.extra: no loss 'jitterr' .*\['jitter'\]"):
        objective_of(make_config, model, extra={"jitterr": 0.5})
    with pytest.raises(UserError, match="no loss 'video' takes its weight there"):
        objective_of(make_config, model, extra={"video": 0.5})
