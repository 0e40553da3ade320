"""Training on a GPU through the engine, tiny; on the CPU in a rehearsal (`GPU_REHEARSAL=1`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from df_infer.run_log import read_log
from df_models import DualForce
from df_train import engine, run
from df_train.config import TrainConfig
from df_train.ema import ParameterAverage
from df_train.figures import speed
from df_train.objective import Losses, Objective
from df_train.run import train
from df_train.saving.saves import Staging
from df_train.skips import Skips

pytestmark = pytest.mark.gpu
MakeConfig = Callable[..., TrainConfig]
Interrupted = Callable[..., AbstractContextManager[None]]
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


def test_the_device_s_own_rate_is_no_part_of_the_peak(gpu: torch.device):
    if gpu.type != "cuda":
        pytest.skip("the peak of a process without CUDA cannot be set back")
    speed.own_rate.cache_clear()
    before = torch.cuda.memory_allocated(gpu), torch.cuda.memory_reserved(gpu)
    speed.own_rate(gpu, torch.bfloat16)
    assert torch.cuda.max_memory_allocated(gpu) - before[0] < 1 << 26, "its matrices take 384 MiB"
    assert torch.cuda.memory_reserved(gpu) - before[1] < 1 << 26


def test_an_interrupted_run_goes_on(
    make_config: MakeConfig, tmp_path: Path, gpu: torch.device, interrupted_after: Interrupted
):
    straight, broken = (make_config(tmp_path / name, **settings(gpu)) for name in ("straight", "broken"))
    train(straight)
    with interrupted_after(3):
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


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(
    make_config: MakeConfig, tmp_path: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
):
    measure = Objective.__call__

    def damaged(self: Objective, model: Any, batch: Any, step: int, banks: Any) -> Losses:
        losses = measure(self, model, batch, step, banks)
        return losses._replace(total=losses.total * math.nan) if step in (2, 4) else losses

    monkeypatch.setattr(Objective, "__call__", damaged)
    config = make_config(tmp_path / "run", **settings(gpu))
    assert train(config).stop is engine.Stop.DONE
    lines = read_log(config.directory / "metrics.jsonl")
    assert [line["optim/skipped"] for line in lines] == [0, 0, 1, 1, 2, 2]
    assert all(math.isfinite(value) for line in lines for value in line.values())


def test_skipping_does_not_wait_for_the_device(gpu: torch.device, rehearsal: bool):
    module = torch.nn.Linear(8, 8, device=gpu)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    average, skips = ParameterAverage(module), Skips(gpu)
    module(torch.ones(2, 8, device=gpu)).sum().backward()
    norms = [torch.tensor(value, device=gpu) for value in (1.0, math.inf, 1.0)]
    kept = []
    if not rehearsal:
        torch.cuda.set_sync_debug_mode("error")
    try:
        for step, norm in enumerate(norms, start=1):
            skips.take(skips.note(norm, step, []), optimizer, average, 0.5)
            kept.append([value.detach().clone() for value in (module.weight, average.state_dict()["weight"])])
    finally:
        if not rehearsal:
            torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(one, two) for one, two in zip(kept[0], kept[1]))
    assert not any(torch.equal(one, two) for one, two in zip(kept[1], kept[2]))
    assert skips.look().total == 1


def test_the_log_tells_shares_and_memory_and_steps_are_traced(
    make_config: MakeConfig, tmp_path: Path, gpu: torch.device, rehearsal: bool
):
    config = make_config(tmp_path / "run", **settings(gpu, profile={"start": 3, "steps": 2}))
    train(config)
    line = read_log(config.directory / "metrics.jsonl")[-1]
    assert 0 < line["time/matmul_share"] < 1 and line["time/memory_peak_gib"] > 0
    written = {path.name for path in (config.directory / "profile").iterdir()}
    assert written == ({"trace-0.json"} if rehearsal else {"trace-0.json", "memory-0.pickle"})
    if not rehearsal:
        assert line["time/memory_reserved_gib"] >= line["time/memory_allocated_gib"] > 0


def test_what_is_staged_for_a_checkpoint_is_a_pinned_copy(gpu: torch.device, rehearsal: bool):
    tensors = {"model": {"weight": torch.randn(64, 32, device=gpu)}}
    staging, wanted = Staging(), tensors["model"]["weight"].cpu().clone()
    weight = staging.copy(tensors)["model"]["weight"]
    tensors["model"]["weight"].zero_()
    assert weight.device.type == "cpu" and torch.equal(weight, wanted)
    assert rehearsal or weight.is_pinned()
    again = staging.copy(tensors)["model"]["weight"]
    assert again.data_ptr() == weight.data_ptr() and not again.any()
