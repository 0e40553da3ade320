"""Steps whose gradient is not finite: skipped without a trace, counted, and too many in a row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from df_infer.run_log import read_log
from df_models.flow import ErrorBank
from df_train import engine
from df_train.config import TrainConfig
from df_train.ema import ParameterAverage
from df_train.engine import NotFinite, Stop, Trainer
from df_train.objective import Losses, Objective
from df_train.run import train
from df_train.skips import SkipCounts, Skips

MakeConfig = Callable[..., TrainConfig]
AfterSteps = Callable[..., AbstractContextManager[None]]
Interrupted = Callable[..., AbstractContextManager[None]]


@pytest.fixture(params=[True, False], ids=["waits", "on the device"])
def waits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways, on the CPU: the host looks at every step, or the device decides."""
    original = Skips.__init__

    def init(self: Skips, device: torch.device) -> None:
        original(self, device)
        self.waits = request.param

    monkeypatch.setattr(Skips, "__init__", init)
    return request.param


def damage(monkeypatch: pytest.MonkeyPatch, *steps: int, value: float = torch.nan) -> None:
    """Make the loss of these steps (counted from 1) no number."""
    original = Objective.__call__

    def damaged(self: Objective, model: Any, batch: Any, step: int, banks: Any) -> Losses:
        losses = original(self, model, batch, step, banks)
        if step + 1 not in steps:
            return losses
        terms = {name: term._replace(error_BT=term.error_BT * value) for name, term in losses.terms.items()}
        return losses._replace(total=losses.total * value, terms=terms)

    monkeypatch.setattr(Objective, "__call__", damaged)


def made(make_config: MakeConfig, run: Path, steps: int = 8, **optim: Any) -> TrainConfig:
    settings = {"steps": steps, "warmup": 2, **optim}
    return make_config(run, optim=settings, log={"every": 2}, checkpoint={"every": 100})


def lines(config: TrainConfig) -> list[dict[str, float]]:
    found = read_log(config.directory / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in found]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_skipped_step_leaves_only_its_number(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool, value: float
):
    seen: dict[int, list[torch.Tensor]] = {}
    original = Trainer.step

    def step(self: Trainer) -> None:
        original(self)
        state = self.state
        moments = [state.optimizer.state[p][key] for p in state.model.parameters() for key in ("exp_avg", "step")]
        kept = [*state.model.parameters(), *state.average.state_dict().values(), *moments, state.meter.sums_LK2]
        seen[state.step] = [engine._whole(value).detach().clone() for value in kept]

    monkeypatch.setattr(Trainer, "step", step)
    damage(monkeypatch, 5, value=value)
    config = made(make_config, tmp_path / "run")
    assert train(config).step == 8
    assert all(torch.equal(one, two) for one, two in zip(seen[4][:-1], seen[5][:-1], strict=True))
    assert not seen[5][-1].any(), "figures were logged after step 4, and step 5 adds none"
    assert any(not torch.equal(one, two) for one, two in zip(seen[5][:-1], seen[6][:-1], strict=True))
    told = lines(config)
    assert [line["optim/skipped"] for line in told] == [0, 0, 1, 1]
    assert all(torch.isfinite(torch.tensor(list(line.values()))).all() for line in told)
    assert all("loss" in line and "grad_norm" in line for line in told)


def test_a_skipped_step_records_no_errors(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool, after_steps: AfterSteps
):
    banks: list[torch.Tensor] = []

    def look(trainer: Trainer) -> None:
        assert trainer.state.banks is not None
        kept = trainer.state.banks.state_dict()
        banks.append(torch.cat([value.flatten().double() for value in kept.values()]))

    damage(monkeypatch, 2)
    history = {"mode": "error_recycling"}
    config = make_config(tmp_path / "run", objective={"history": history}, optim={"steps": 3, "warmup": 1})
    with after_steps(1, 2, 3, act=look):
        train(config)
    assert torch.equal(banks[0], banks[1]) and not torch.equal(banks[1], banks[2])


def test_a_log_line_of_skipped_steps_alone_has_no_loss(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
):
    damage(monkeypatch, 3, 4)
    config = made(make_config, tmp_path / "run")
    train(config)
    assert ["loss" in line for line in lines(config)] == [True, False, True, True]
    assert ["grad_norm" in line for line in lines(config)] == [True, False, True, True]


def test_the_device_s_own_decision_changes_no_number(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = made(make_config, tmp_path / "waiting")
    train(config)
    original = Skips.__init__

    def init(self: Skips, device: torch.device) -> None:
        original(self, device)
        self.waits = False

    monkeypatch.setattr(Skips, "__init__", init)
    other = made(make_config, tmp_path / "deciding")
    train(other)
    assert lines(other) == lines(config)
    files = [c.directory / "model" / "model.safetensors" for c in (config, other)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("most", [0, 2])
def test_too_many_in_a_row_end_the_run_and_name_the_clips(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool, most: int
):
    damage(monkeypatch, *range(3, 4 + most))
    config = made(make_config, tmp_path / "run", max_skips=most)
    with pytest.raises(
        NotFinite, match=rf"{most + 1} steps in a row \(optim.max_skips={most}\).*train-\d{{4}}"
    ) as told:
        train(config)
    assert f"step {3 + most}, on the clips of process 0: train-" in str(told.value)
    assert not (config.directory / "model").exists() and not (config.directory / "checkpoints").exists()


def test_the_count_in_a_row_survives_a_resume(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted_after: Interrupted,
    waits: bool,
):
    damage(monkeypatch, 3, 4, 5)
    config = made(make_config, tmp_path / "run", max_skips=2)
    with interrupted_after(4):
        assert train(config).stop is Stop.INTERRUPTED
    with pytest.raises(NotFinite, match="3 steps in a row"):
        train(config)
    more = made(make_config, tmp_path / "run", max_skips=3)
    assert train(more).stop is Stop.DONE
    assert lines(more)[-1]["optim/skipped"] == 3


def test_weights_that_are_no_numbers_are_not_saved(make_config: MakeConfig, tmp_path: Path, after_steps: AfterSteps):

    def poison(trainer: Trainer) -> None:
        with torch.no_grad():
            next(trainer.state.model.parameters()).fill_(torch.nan)

    config = made(make_config, tmp_path / "run")
    short = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"every": 4})})
    with after_steps(4, act=poison), pytest.raises(NotFinite, match="weights"):
        train(short)
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_counts_on_the_device():
    skips = Skips(torch.device("cpu"))
    for step, norm in enumerate([1.0, torch.inf, torch.nan, 1.0, torch.nan], start=1):
        assert skips.note(torch.tensor(norm), step, [f"clip-{step}"]) == float(step in (2, 3, 5))
    assert skips.look() == SkipCounts(total=3, row=1, longest=2, last=3)
    assert skips.keys_of(3) == ["clip-3"], "the last of the longest row, not the last of all"
    assert skips.look().longest == 1, "since the last look"
    again = Skips(torch.device("cpu"))
    again.load_state_dict(skips.state_dict())
    assert again.look() == SkipCounts(total=3, row=1, longest=1, last=3)


def test_the_average_moves_alike_with_and_without_a_guard():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 3)
    averages = [ParameterAverage(module) for _ in range(3)]
    with torch.no_grad():
        module.weight.add_(1.0)
    for decay in (0.1, 0.9):
        averages[0].update(decay)
        averages[1].update(decay, unless=torch.tensor(0.0))
    before = averages[2].state_dict()["weight"].clone()
    averages[2].update(0.1, unless=torch.tensor(1.0))
    assert torch.equal(averages[0].state_dict()["weight"], averages[1].state_dict()["weight"])
    assert torch.equal(averages[2].state_dict()["weight"], before)


def test_recorded_errors_that_are_no_numbers_are_left_out():
    bank = ErrorBank((2,), 4)
    predicted = torch.tensor([[[1.0, 2.0], [torch.nan, 0.0], [3.0, torch.inf], [4.0, 5.0]]])
    bank.add(predicted, torch.zeros(1, 4, 2))
    assert len(bank) == 2 and bank.errors[:2].tolist() == [[1.0, 2.0], [4.0, 5.0]]
    bank.add(predicted[:, 1:3], torch.zeros(1, 2, 2))
    assert len(bank) == 2
