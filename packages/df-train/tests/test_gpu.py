"""Training on a GPU through the engine, tiny; on the CPU in a rehearsal (`GPU_REHEARSAL=1`)."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from df_infer.run_log import read_log
from df_models import DualForce
from df_train import engine, run
from df_train.config import TrainConfig
from df_train.run import train

pytestmark = pytest.mark.gpu
MakeConfig = Callable[..., TrainConfig]
NAMES = ("loss", "loss/video", "loss/structure", "loss/flame")


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU machine without a network need not have matplotlib (`benchmarks/gpu_wheels.txt`)."""
    monkeypatch.setattr(run, "plot_losses", lambda *_: False)


def losses(config: TrainConfig) -> list[list[float]]:
    return [[line[name] for name in NAMES] for line in read_log(config.directory / "metrics.jsonl")]


def settings(gpu: torch.device, **changes: Any) -> dict[str, Any]:
    return {"device": gpu.type, "optim": {"steps": 6, "warmup": 1}, "log": {"every": 1}, **changes}


def test_it_learns_in_bfloat16(make_config: MakeConfig, tmp_path: Path, gpu: torch.device):
    precise, rounded = (
        make_config(tmp_path / bf16, **settings(gpu, precision={"bf16": bf16})) for bf16 in ("off", "on")
    )
    train(precise)
    train(rounded)
    exact, found = losses(precise), losses(rounded)
    assert all(math.isfinite(value) for line in found for value in line)
    assert found[0] == pytest.approx(exact[0], rel=0.05), "bfloat16 rounds to 0.4 %"
    assert found[0] != exact[0]


def test_an_interrupted_run_goes_on(
    make_config: MakeConfig, tmp_path: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
):
    straight, broken = (make_config(tmp_path / name, **settings(gpu)) for name in ("straight", "broken"))
    train(straight)
    original = engine.Trainer.step

    def interrupted(self: engine.Trainer) -> None:
        original(self)
        if self.state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "step", interrupted)
        assert train(broken).stop is engine.Stop.INTERRUPTED
    assert train(broken).stop is engine.Stop.DONE
    for one, other in zip(losses(broken), losses(straight), strict=True):
        assert one == pytest.approx(other, rel=1e-3), "a GPU adds in an order of its own"


@pytest.mark.parametrize(
    "sharding", [{"group": "block"}, {"checkpointing": "every"}, {"checkpointing": 2}, {"compile": True}]
)
def test_how_layers_are_computed_changes_no_loss(
    make_config: MakeConfig,
    tmp_path: Path,
    gpu: torch.device,
    rehearsal: bool,
    monkeypatch: pytest.MonkeyPatch,
    sharding: dict[str, Any],
):
    compile_layers, compiled = DualForce.compile_layers, []

    def compile_once(model: DualForce) -> None:
        compiled.append(model)
        compile_layers(model, **({"backend": "eager"} if rehearsal else {}))  # making code for a CPU takes a minute

    monkeypatch.setattr(DualForce, "compile_layers", compile_once)
    plain, other = (
        make_config(tmp_path / name, **settings(gpu, precision={"bf16": "off"}, sharding=chosen))
        for name, chosen in (("plain", {}), ("other", sharding))
    )
    train(plain)
    train(other)
    assert len(compiled) == ("compile" in sharding)
    for one, two in zip(losses(other), losses(plain), strict=True):
        assert one == pytest.approx(two, rel=1e-3)
