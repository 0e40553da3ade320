"""Structure that is given: whole, or in named fields; shown clean, told to the model, and not learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.reading import ShardReader
from df_data.reading.batch import Batch
from df_models import DualForce, DualForceConfig
from df_models.errors import UserError
from df_models.flow import ErrorBank, velocity_target
from df_models.model.dualforce import Velocity
from df_models.structure import SYNTHETIC_70, StructureLayout
from df_train.config import ObjectiveConfig, TrainConfig
from df_train.given import GivenStructure, given_structure
from df_train.noising import Banks, Shown, Streams, history_config, show
from df_train.objective import FlameScale, Objective, flame_term, flow_terms, predicted_clean
from df_train.preflight import preflight
from df_train.run import train

MakeConfig = Callable[..., TrainConfig]
LAYOUT = StructureLayout.of(SYNTHETIC_70, "synthetic")
HEAD = [["pitch", "yaw", "roll"], "expression"]


@pytest.fixture(scope="module")
def model(tiny_model: dict[str, int]) -> DualForce:
    torch.manual_seed(0)
    return DualForce.from_preset("quickstart", **tiny_model, structure_layout=LAYOUT, structure_known=True)


@pytest.fixture
def batch(dataset: Path) -> Batch:
    return next(iter(ShardReader(dataset / "train", batch_size=12, seed=0)))


def rule_of(model: DualForceConfig, **objective: Any) -> GivenStructure:
    rule = given_structure(ObjectiveConfig(**objective), model)
    assert rule is not None
    return rule


def shown_of(batch: Batch, banks: Banks | None = None, **objective: Any) -> Shown:
    settings = ObjectiveConfig(**objective)
    clean = Streams(batch.video, batch.structure)
    return show(batch, clean, settings, history_config(settings, 0.7), banks, seed=5, step=3)


def banks_of(batch: Batch) -> Banks:
    return Banks(ErrorBank(tuple(batch.video.shape[2:]), 16), ErrorBank((4, 70), 16))


def names_of(known_V: torch.Tensor) -> frozenset[str]:
    return frozenset(name.split("[")[0] for name, known in zip(SYNTHETIC_70.names, known_V.tolist()) if known)


# -------------------- who is given what


def test_shares_are_of_different_clips_and_every_choice_of_groups_comes_as_often(model: DualForce):
    rule = rule_of(model.config, give_structure=0.2, give_fields={"share": 0.6, "fields": HEAD})
    whole_B, known_BV = rule.draw(list(range(6000)), seed=1, step=7)
    some_B = known_BV.any(dim=1)
    assert not (whole_B & some_B).any()
    assert whole_B.float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert some_B.float().mean().item() == pytest.approx(0.6, abs=0.02)
    counts = Counter(names_of(known_V) for known_V in known_BV[some_B])
    head, face = frozenset({"pitch", "yaw", "roll"}), frozenset({"expression"})
    assert set(counts) == {head, face, head | face}
    assert all(count / some_B.sum().item() == pytest.approx(1 / 3, abs=0.03) for count in counts.values())


def test_a_clip_is_given_the_same_in_any_batch_and_other_things_at_another_step(model: DualForce):
    rule = rule_of(model.config, give_structure=0.3, give_fields={"share": 0.5, "fields": HEAD})
    ids = list(range(40))
    one, part, later = (
        rule.draw(ids, seed=1, step=7),
        rule.draw([31, 4], seed=1, step=7),
        rule.draw(ids, seed=1, step=8),
    )
    assert all(torch.equal(a[[31, 4]], b) for a, b in zip(one, part))
    assert not torch.equal(one.whole_B, later.whole_B)


@pytest.mark.parametrize(
    ("objective", "changes", "said"),
    [
        ({"give_fields": {"share": 0.5, "fields": ["pich"]}}, {}, "did you mean 'pitch'"),
        ({"give_fields": {"share": 0.5, "fields": ["pitch"]}}, {"structure_known": False}, "structure_known=true"),
        ({"give_fields": {"share": 0.5, "fields": ["pitch"]}}, {"structure_layout": None}, "build it again"),
        ({"give_fields": {"share": 0.5, "fields": [f for f, _ in SYNTHETIC_70.fields]}}, {}, "the whole structure"),
    ],
)
def test_what_the_model_cannot_be_given_is_told(
    model: DualForce, objective: dict[str, Any], changes: dict[str, Any], said: str
):
    with pytest.raises(UserError, match=said):
        given_structure(ObjectiveConfig(**objective), replace(model.config, **changes))


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"give_fields": {"share": 0.5}}, "name fields"),
        ({"give_fields": {"share": 0.5, "fields": [[]]}}, "give_fields"),
        ({"give_structure": 0.6, "give_fields": {"share": 0.5, "fields": ["pitch"]}}, "together at most 1"),
    ],
)
def test_settings_that_do_not_fit_together_are_told(
    make_config: MakeConfig, tmp_path: Path, objective: dict[str, Any], said: str
):
    with pytest.raises(UserError, match=said):
        make_config(tmp_path / "run", objective=objective)


@pytest.mark.parametrize(
    ("fields", "known", "said"),
    [(["pitch"], False, "structure_known=true"), (["pich"], True, "did you mean 'pitch'"), (["pitch"], True, None)],
)
def test_a_corpus_that_is_still_to_be_made_is_checked_too(
    make_config: MakeConfig,
    tiny_model: dict[str, int],
    tmp_path: Path,
    fields: list[str],
    known: bool,
    said: str | None,
):
    config = make_config(
        tmp_path / "run",
        objective={"give_fields": {"share": 0.5, "fields": fields}},
        model={"overrides": {**tiny_model, "structure_known": known}},
        data={
            "root": str(tmp_path / "none"),
            "synth": {"clips": 8, "val_clips": 2, "frames": 9, "val_frames": 9, "size": 32},
        },
    )
    with nullcontext() if said is None else pytest.raises(UserError, match=said):
        preflight(config)


def test_a_field_that_is_not_there_is_told_before_work_begins(
    make_config: MakeConfig, tiny_model: dict[str, int], tmp_path: Path
):
    overrides = {**tiny_model, "structure_known": True}
    objective = {"give_fields": {"share": 0.5, "fields": ["pich"]}}
    with pytest.raises(UserError, match="did you mean 'pitch'"):
        preflight(make_config(tmp_path / "run", objective=objective, model={"overrides": overrides}))


def test_samples_are_not_guided_on_structure_that_was_never_all_noise(
    make_config: MakeConfig, tiny_model: dict[str, int], tmp_path: Path
):
    guided = {"rollout": {"structure_guidance": 2.0}, "model": {"overrides": tiny_model}}
    preflight(make_config(tmp_path / "run", **guided))
    with pytest.raises(UserError, match=r"objective\.structure_tail=0"):
        preflight(make_config(tmp_path / "run", objective={"structure_tail": 0.0}, **guided))


# -------------------- structure given whole


@pytest.mark.parametrize("mode", ["independent", "clean_past", "teacher_forcing", "error_recycling"])
def test_structure_given_whole_is_clean_and_not_learnt_and_video_is_as_it_was(
    model: DualForce, batch: Batch, mode: str
):
    banks = None
    if mode == "error_recycling":
        banks = banks_of(batch)
        banks.structure.add(torch.full_like(batch.structure[:1, :1], 9.0), torch.zeros_like(batch.structure[:1, :1]))
    before = shown_of(batch, banks, history={"mode": mode})
    rule, ids = rule_of(model.config, give_structure=0.5), batch.sample_ids.tolist()
    after = rule.give(before, ids, seed=5, step=3)
    given = rule.draw(ids, seed=5, step=3).whole_B
    assert given.any() and not given.all() and after.known is None
    assert not after.sigma.structure[given].any() and not after.learnt.structure[given].any()
    assert torch.equal(after.noisy.structure[given], after.clean.structure[given])
    for name in ("noisy", "sigma", "learnt"):
        assert torch.equal(getattr(after, name).video, getattr(before, name).video)
        assert torch.equal(getattr(after, name).structure[~given], getattr(before, name).structure[~given])
    if before.history is not None and after.history is not None:
        assert torch.equal(after.history.structure[given], after.clean.structure[given])
        assert not after.history.sigma_structure[given].any()
        assert torch.equal(after.history.structure[~given], before.history.structure[~given])
        assert torch.equal(after.history.video, before.history.video)
    wrong = Velocity(torch.zeros_like(batch.video), torch.full_like(batch.structure, 100.0))
    terms = flow_terms(wrong, after, batch.mouth_mask)
    assert not terms["structure"].counts_BT[given].any() and terms["video"].counts_BT[given].any()


def test_no_error_is_recorded_of_structure_that_was_given(batch: Batch, model: DualForce):
    shown = rule_of(model.config, give_structure=0.5).give(
        shown_of(batch, history={"mode": "error_recycling"}), batch.sample_ids.tolist(), seed=5, step=3
    )
    given = ~shown.learnt.structure.any(dim=1)
    banks = banks_of(batch)
    answer = Velocity(torch.ones_like(batch.video), torch.ones_like(batch.structure))
    banks.record(predicted_clean(answer, shown), shown)
    assert len(banks.video) == len(batch) and len(banks.structure) == int((~given).sum()) < len(batch)
    assert banks.structure.errors[: len(banks.structure)].flatten(1).any(dim=1).all()


def test_no_error_is_recorded_of_a_frame_that_was_given_clean(batch: Batch, model: DualForce):
    """A first frame given clean has sigma 0, which is nearer to 0.4 than that of noisy frames."""
    shown = shown_of(batch, history={"mode": "error_recycling"}, start_clean=1.0)
    clean_B = ~shown.learnt.video[:, 0]
    level = torch.full_like(shown.sigma.video, 0.95) * shown.learnt.video
    shown = replace(shown, sigma=Streams(level, level))
    banks = banks_of(batch)
    banks.record(Streams(shown.clean.video + 1.0 * (level > 0)[..., None, None, None], shown.clean.structure), shown)
    assert clean_B.any() and len(banks.video) == len(batch)
    assert banks.video.errors[: len(batch)].flatten(1).any(dim=1).all()
    rule = rule_of(model.config, give_fields={"share": 0.5, "fields": HEAD})
    given = rule.give(shown, batch.sample_ids.tolist(), seed=5, step=3)
    assert given.known is not None
    banks = banks_of(batch)
    banks.record(shown.noise, given)
    assert len(banks.structure) == int((~given.known.flatten(1).any(dim=1)).sum()) < len(batch) == len(banks.video)


def objective_of(make_config: MakeConfig, model: DualForce, **changes: Any) -> Objective:
    config = make_config(Path("run"), objective=changes)
    return Objective(config, model.config, FlameScale(torch.zeros(159), torch.full((159,), 0.1)))


def test_a_share_that_meets_no_clip_changes_no_bit(make_config: MakeConfig, model: DualForce, batch: Batch):
    off, never = objective_of(make_config, model), objective_of(make_config, model, give_structure=1e-9)
    one, other = off(model, batch, 3, None), never(model, batch, 3, None)
    assert torch.equal(one.total, other.total)
    assert all(torch.equal(a, b) for x, y in zip(one.terms.values(), other.terms.values()) for a, b in zip(x, y))


# -------------------- named fields


@pytest.mark.parametrize("mode", ["independent", "teacher_forcing"])
def test_named_fields_are_clean_within_noisy_frames_and_told(model: DualForce, batch: Batch, mode: str):
    before = shown_of(batch, history={"mode": mode})
    rule, ids = rule_of(model.config, give_fields={"share": 0.7, "fields": HEAD}), batch.sample_ids.tolist()
    after = rule.give(before, ids, seed=5, step=3)
    known_BV = rule.draw(ids, seed=5, step=3).known_BV
    assert after.known is not None and 0 < int(known_BV.any(dim=1).sum()) < len(batch)
    assert torch.equal(after.known, known_BV[:, None, None].expand_as(batch.structure))
    for clean, noisy, found in (
        (before.clean.structure, before.noisy.structure, after.noisy.structure),
        *([(before.clean.structure, before.history.structure, after.history.structure)]
          if before.history is not None and after.history is not None else []),
    ):  # fmt: skip
        assert torch.equal(found[after.known], clean[after.known])
        assert torch.equal(found[~after.known], noisy[~after.known]) and not torch.equal(found, noisy)
    assert torch.equal(after.sigma.structure, before.sigma.structure), "the frame keeps its level for all other entries"
    assert torch.equal(after.learnt.structure, before.learnt.structure)


def test_only_what_is_not_given_is_learnt(model: DualForce, batch: Batch):
    rule = rule_of(model.config, give_fields={"share": 1.0, "fields": HEAD})
    shown = rule.give(shown_of(batch, history={"mode": "independent"}), batch.sample_ids.tolist(), seed=5, step=3)
    assert shown.known is not None
    answer = velocity_target(shown.clean.structure, shown.noise.structure)
    wrong = torch.where(shown.known, answer + 100.0, answer)
    assert not flow_terms(Velocity(batch.video, wrong), shown, batch.mouth_mask)["structure"].error_BT.any()
    wrong = torch.where(shown.known, answer, answer + 2.0)
    error = flow_terms(Velocity(batch.video, wrong), shown, batch.mouth_mask)["structure"].error_BT
    torch.testing.assert_close(error, torch.full_like(error, 4.0))


def test_what_is_given_stands_in_what_is_predicted(model: DualForce, batch: Batch):
    rule = rule_of(model.config, give_fields={"share": 1.0, "fields": ["expression"]})
    shown = rule.give(shown_of(batch, history={"mode": "independent"}), batch.sample_ids.tolist(), seed=5, step=3)
    wild = torch.full_like(batch.structure, 50.0)
    found = predicted_clean(Velocity(batch.video, wild), shown).structure
    assert torch.equal(found[..., :63], shown.clean.structure[..., :63])
    assert not torch.equal(found[..., 63:], shown.clean.structure[..., 63:])
    right = velocity_target(shown.clean.structure, shown.noise.structure)
    guess = torch.where(shown.known, wild, right)  # type: ignore[arg-type]
    assert batch.flame is not None
    scale = FlameScale(torch.zeros(159), torch.ones(159))
    one, other = (flame_term(model, velocity, shown, batch.flame, scale).error_BT for velocity in (guess, right))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_model_hears_of_it(make_config: MakeConfig, model: DualForce, batch: Batch):
    objective = objective_of(make_config, model, give_fields={"share": 1.0, "fields": ["pitch"]}, drop_audio=0.0)
    model.zero_grad()
    with torch.no_grad():
        model.structure.head.head.weight.normal_(std=0.1)  # it starts at zero, and would let no gradient through
    objective(model, batch, 0, None).total.backward()
    assert model.structure.known_embedding is not None
    gradient = model.structure.known_embedding.grad
    assert gradient is not None and gradient[:, 63].any() and not gradient[:, :63].any() and not gradient[:, 64:].any()


# -------------------- runs


def test_a_run_from_an_earlier_model_learns_what_it_is_told(
    make_config: MakeConfig, tiny_model: dict[str, int], tmp_path: Path
):
    steps = {"optim": {"steps": 3, "warmup": 1}}
    plain = make_config(tmp_path / "plain", **steps)
    train(plain)
    started = {"start_from": str(tmp_path / "plain" / "model"), "overrides": {"structure_known": True}}

    def from_plain(name: str, **changes: Any) -> DualForce:
        config = make_config(tmp_path / name, **changes)
        train(config.model_copy(update={"model": config.model.model_copy(update=started)}))
        return DualForce.from_pretrained(tmp_path / name / "model")

    still = from_plain("still", optim={"steps": 1, "warmup": 0, "lr": 1e-30})
    before = DualForce.from_pretrained(tmp_path / "plain" / "model").state_dict()
    for name, weight in still.state_dict().items():
        assert torch.equal(weight, before[name]) if name in before else not (weight.abs() > 1e-20).any(), name
    objective = {"give_structure": 0.3, "give_fields": {"share": 0.5, "fields": HEAD}}
    learnt = from_plain("learnt", objective=objective, **steps).state_dict()["structure.known_embedding"]
    assert learnt[:, :66].any() and not learnt[:, 66:].any()


@pytest.mark.parametrize("mode", ["clean_past", "error_recycling"])
def test_a_run_that_is_interrupted_goes_on_to_the_bit(
    make_config: MakeConfig, tiny_model: dict[str, int], tmp_path: Path, mode: str
):
    changes = {
        "objective": {
            "give_structure": 0.3,
            "give_fields": {"share": 0.5, "fields": HEAD},
            "history": {"mode": mode, "error_bank": 8},
        },
        "model": {"overrides": {**tiny_model, "structure_known": True}},
    }

    def until(name: str, steps: int) -> TrainConfig:
        return make_config(tmp_path / name, optim={"steps": steps, "warmup": 1, "floor": 1.0}, **changes)

    train(until("straight", 4))
    train(until("broken", 2))
    train(until("broken", 4), "resume")
    weights = [tmp_path / name / "model" / "model.safetensors" for name in ("straight", "broken")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
