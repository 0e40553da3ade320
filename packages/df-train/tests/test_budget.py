"""A time budget on a clock that the tests turn: what is chosen, written down, kept on resume, and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from df_data.synth.config import SynthConfig
from df_models.errors import UserError
from df_models.settings import Location, dump_config, load_config, parse_yaml, validate_config
from df_train import budget, engine
from df_train.budget import CORPUS_SHARE, Clock, Pace, as_chosen, fit_clips, with_clips
from df_train.cli import said
from df_train.config import BudgetConfig, OptimConfig, TrainConfig
from df_train.engine import Stop
from df_train.objective import weight_of
from df_train.processes.distributed import World
from df_train.run import train
from df_train.schedule import learning_rate

MakeConfig = Callable[..., TrainConfig]
ALONE = cast(World, SimpleNamespace(first_alone=lambda work: work(), is_main=True, size=1))
STEPS, WARMUP = 400, 20


class Hands:
    """The clock's hands: seconds that go by only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    turned = Hands()
    monkeypatch.setattr(budget, "time", turned)
    return turned


def settings(minutes: float, steps: int = STEPS, **more: Any) -> TrainConfig:
    return TrainConfig(
        optim=OptimConfig(steps=steps, warmup=WARMUP, lr=1.0, floor=0.05), budget=BudgetConfig(minutes=minutes), **more
    )


def walk(
    config: TrainConfig, hands: Hands, clock: Clock, seconds: Callable[[int], float]
) -> tuple[TrainConfig, list[str], list[TrainConfig], list[float]]:
    """Take all steps; the lines told, the configurations recorded and the learning rate of each step."""
    lines: list[str] = []
    records: list[TrainConfig] = []
    pace = Pace(config, clock, ALONE, lines.append, records.append)
    rates, step = [], 0
    while step < config.optim.steps:
        rates.append(rate(config, step))
        hands.now += seconds(step)
        step += 1
        config = pace.after_step(config, step)
    return config, lines, records, rates


def rate(config: TrainConfig, step: int) -> float:
    optim = config.optim
    return learning_rate(
        step, peak=optim.lr, warmup=optim.warmup, total=optim.steps, floor=optim.floor, bends=optim.bends
    )


def flame_weight(config: TrainConfig, step: int) -> float:
    return weight_of("flame", config.objective, step)


def test_the_flame_weight_falls_with_the_fitted_steps(hands: Hands) -> None:
    asked = settings(10, objective={"flame": {"decay_steps": 300}})
    config, *_ = walk(asked, hands, Clock(10, hands.now), lambda step: 3.0)
    fitted = config.optim.steps
    assert fitted < 250 and config.objective.flame.decay_steps == pytest.approx(0.75 * fitted, abs=4)
    assert [flame_weight(config, s) for s in range(9)] == [flame_weight(asked, s) for s in range(9)], "before the fit"
    assert flame_weight(config, fitted) == pytest.approx(0.02)
    assert as_chosen(asked, config) == config


def test_a_fast_machine_takes_every_step(hands: Hands) -> None:
    clock = Clock(10, hands.now)
    config, lines, records, _ = walk(settings(10), hands, clock, lambda step: 0.5)
    assert config.optim.steps == STEPS and config.optim.bends == ()
    assert len(lines) == 1 and "all of them" in lines[0]
    assert len(records) == 1 and records[-1] == config and not config.budget.measure


def test_a_slow_machine_takes_what_fits_and_says_what_more_time_buys(hands: Hands) -> None:
    clock = Clock(10, hands.now)
    hands.now += 120
    config, lines, records, rates = walk(settings(10), hands, clock, lambda step: 3.0)
    end = 3.0 * budget._END_STEPS + budget._END_SECONDS
    assert 0 <= clock.left - end < 0.06 * 600, "little is left over, and what follows the steps has its time"
    assert config.optim.bends == (), "nothing had followed the schedule when it was fitted"
    assert rates[-1] == pytest.approx(0.05, abs=0.01), "the learning rate came down"
    assert len(lines) == 1 and f"{config.optim.steps} of {STEPS} steps" in lines[0]
    assert "budget.minutes=24" in lines[0]  # 120 s + 400 steps of 3 s + 34 s, and a margin
    assert config.budget == BudgetConfig(minutes=10, measure=False, full_steps=STEPS)
    assert records == [config]


@pytest.mark.parametrize("factor", [3.0, 0.4])
def test_a_machine_that_changes_midway_bends_the_schedule(hands: Hands, factor: float) -> None:
    clock = Clock(10, hands.now)
    config, lines, records, rates = walk(settings(10), hands, clock, lambda step: 2.5 * (factor if step >= 90 else 1.0))
    word = "slower" if factor > 1 else "faster"
    assert len(lines) > 1 and all(word in line for line in lines[1:])
    assert config.optim.bends and records[-1] == config
    assert -0.02 * 600 < clock.left < 0.25 * 600
    assert rates[-1] < 0.06, "the schedule has ended"
    assert all(abs(b - a) < 0.06 for a, b in zip(rates[WARMUP:], rates[WARMUP + 1 :])), "without a jump"
    again = [rate(config, step) for step in range(config.optim.steps)]
    assert again == pytest.approx(rates), "the configuration alone repeats every learning rate"


def test_a_machine_that_stands_still_for_long_still_ends_its_schedule(hands: Hands) -> None:
    clock = Clock(10, hands.now)
    config, _, _, rates = walk(settings(10), hands, clock, lambda step: 900.0 if step == 100 else 2.0)
    assert clock.left < 0 and 100 < config.optim.steps < 160
    assert rates[-1] < 0.1


@pytest.mark.parametrize("seconds", [5.0, 6.0, 7.0])
def test_what_is_recorded_is_a_valid_configuration(hands: Hands, seconds: float) -> None:
    """A schedule that ended within its warm-up could not be read back."""
    config = settings(10).model_copy(update={"optim": OptimConfig(steps=STEPS, warmup=50, lr=1.0, floor=0.05)})
    _, _, records, _ = walk(config, hands, Clock(10, hands.now), lambda step: seconds if step < 40 else 2 * seconds)
    assert records
    for record in records:
        assert validate_config(TrainConfig, parse_yaml(dump_config(record), "it")) == record


def test_less_than_the_warm_up_is_too_little_time(hands: Hands) -> None:
    config = settings(10).model_copy(update={"optim": OptimConfig(steps=STEPS, warmup=50, lr=1.0, floor=0.05)})
    with pytest.raises(UserError, match="51 steps"):
        walk(config, hands, Clock(10, hands.now), lambda step: 11.0)


def test_too_little_time_is_told_before_anything_is_kept(hands: Hands) -> None:
    clock = Clock(1, hands.now)
    hands.now += 30
    records: list[TrainConfig] = []
    pace, config = Pace(settings(1), clock, ALONE, print, records.append), settings(1)
    for step in range(1, budget.FIRST_FIT):
        hands.now += 2.0
        assert pace.after_step(config, step) is config
    hands.now += 2.0
    with pytest.raises(UserError, match=r"budget.minutes=1 is too short.* 40 steps need about budget.minutes=2\.\d"):
        pace.after_step(config, budget.FIRST_FIT)
    assert not records


@pytest.mark.parametrize(("seconds", "clips"), [(0.01, 1000), (0.15, 605), (5.0, 64)])
def test_clips_fit_into_their_share(hands: Hands, seconds: float, clips: int) -> None:
    config = settings(10, data={"synth": SynthConfig(clips=1000, val_clips=16, frames=33, val_frames=129)})
    clock = Clock(10, hands.now)
    hands.now += 20
    lines: list[str] = []
    assert fit_clips(config, clock, lines.append)(seconds) == pytest.approx(clips, abs=1)
    assert "of 1000 training clips" in lines[0]
    if clips not in (64, 1000):
        took = 20 + (clips + 16 * 129 / 33) * seconds
        assert took == pytest.approx(CORPUS_SHARE * 600, rel=0.01)


def test_what_was_chosen_is_kept_unless_the_user_changes_it(hands: Hands) -> None:
    asked = settings(10, data={"synth": SynthConfig(clips=1000)})
    chosen, *_ = walk(with_clips(asked, 300), hands, Clock(10, hands.now), lambda step: 5.0)
    assert as_chosen(asked, chosen) == chosen
    assert as_chosen(chosen, chosen) == chosen
    further = asked.model_copy(update={"optim": asked.optim.model_copy(update={"steps": 4000})})
    kept = as_chosen(further, chosen)
    assert kept.optim.steps == 4000 and kept.data == chosen.data and not kept.budget.measure
    all_of_them = as_chosen(asked, chosen, {"optim.steps"})
    assert all_of_them.optim == asked.optim and all_of_them.data == chosen.data, "said, even if it is the old number"
    assert as_chosen(asked, chosen, said(["optim={steps: 400}"])).optim == asked.optim
    for other in ("optim={lr: 3e-4}", "data={batch_size: 8}", "data.synth={val_clips: 3}"):
        assert as_chosen(asked, chosen, said([other])) == chosen, "a section's other settings say nothing of these"
    assert as_chosen(asked, chosen, said(["data={synth: {clips: 1000}}"])).data == asked.data
    long_warmup = asked.model_copy(update={"optim": asked.optim.model_copy(update={"warmup": STEPS - 1})})
    with pytest.raises(UserError, match="warmup"):
        as_chosen(long_warmup, chosen)
    without = asked.model_copy(update={"budget": BudgetConfig()})
    assert as_chosen(without, chosen) == without
    unfitted = with_clips(asked, 300)
    assert as_chosen(asked, unfitted) == unfitted, "stopped before the first fit: the clips are there, the steps not"


@pytest.mark.parametrize("bends", [[[30, 20]], [[50, 90], [40, 80]], [[-1, 5]]])
def test_impossible_bends_are_refused(bends: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="rising steps"):
        OptimConfig(bends=bends)  # type: ignore[arg-type]


def test_a_run_writes_down_what_it_chose_repeats_it_and_goes_on(
    make_config: MakeConfig, tmp_path: Path, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = engine.Trainer.step

    def slow(self: engine.Trainer) -> None:
        hands.now += 1.0
        original(self)

    monkeypatch.setattr(engine.Trainer, "step", slow)
    monkeypatch.setattr(budget, "_FEWEST_STEPS", 10)
    config = make_config(
        tmp_path / "a", optim={"steps": 100, "warmup": 2}, budget={"minutes": 0.7}, checkpoint={"every": 10}
    )
    result = train(config, began=hands.now)
    chosen = load_config(TrainConfig, tmp_path / "a" / "config.yaml")
    assert result.stop is Stop.DONE and result.step == chosen.optim.steps < 30
    assert chosen.optim.bends == ((8, 100),) and chosen.budget.full_steps == 100 and not chosen.budget.measure
    monkeypatch.setattr(budget, "Pace", lambda *args, **more: pytest.fail("nothing is measured again"))
    again = chosen.model_copy(update={"run_dir": Location(str(tmp_path / "b"))})
    train(again)
    for name in ("model/model.safetensors",):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert train(config, "resume").step == result.step
