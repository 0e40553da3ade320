"""Matrix products in float8. What needs torchao is run by CI in an environment that has it (`.ci`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from df_models import DualForce
from df_models.errors import UserError
from df_train import float8
from df_train.config import TrainConfig
from df_train.data.dataset import prepare_data
from df_train.engine import Trainer
from df_train.preflight import preflight
from df_train.processes import sharding
from df_train.processes.distributed import open_world
from df_train.run import build

MakeConfig = Callable[..., TrainConfig]
ROUNDING = 0.05
"""Of a loss: e4m3 has 3 bits of mantissa, so that a factor is rounded by 6 % at most, each another way."""


def test_it_is_refused_where_it_cannot_be_computed(make_config: MakeConfig, tmp_path: Path, monkeypatch: Any):
    with pytest.raises(UserError, match=r"8\.9 or higher .* the device is cpu; set precision\.float8=false$"):
        preflight(make_config(tmp_path, precision={"float8": True}))
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(UserError, match=r"this one has 8\.0"):
        float8.check_float8(gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("df_models.float8.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"install df-train\[float8\]"):
        float8.check_float8(gpu)


needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="needs torchao (df-train[float8])"
)


@needs_torchao
def test_the_linear_layers_of_blocks_that_fit_are_converted_and_no_others():
    layers = [nn.ModuleDict({"fits": nn.Linear(32, 48), "not": nn.Linear(32, 20)}) for _ in range(2)]
    names = [list(layer.state_dict()) for layer in layers]
    assert float8.to_float8(layers, emulate=True).startswith("float8: 2 of the 4 linear layers in the blocks")
    assert [type(layer["fits"]).__name__ for layer in layers] == ["Float8Linear"] * 2
    assert [type(layer["not"]) for layer in layers] == [nn.Linear] * 2
    assert [list(layer.state_dict()) for layer in layers] == names
    with pytest.raises(UserError, match=r"none of the 1 linear layers .* multiples of 16"):
        float8.to_float8([nn.ModuleList([nn.Linear(24, 16)])])


def losses(config: TrainConfig) -> list[float]:
    with open_world("cpu") as world:
        training, objective, *_ = build(config, world, prepare_data(config, world))
        trainer, found = Trainer(config, training, objective, world, [], lambda _: None), []
        for _ in range(3):
            trainer.step()
            found.append(training.meter.read(world)["loss"])
    return found


@needs_torchao
@pytest.mark.parametrize("options", [{}, {"compile": "layers", "checkpointing": "every", "prefetch": 1}])
def test_losses_differ_by_rounding(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: Any, tiny_model: dict[str, int], options: dict[str, Any]
):
    """Emulated: rounded to float8 and multiplied in float32."""
    settings = {
        "model": {"overrides": {**tiny_model, "dim": 32}},
        "optim": {"steps": 3, "warmup": 0},
        "sharding": {"group": "block", **options},
    }
    exact, rounded = (
        make_config(tmp_path / str(on), precision={"bf16": "off", "float8": on}, **settings) for on in (False, True)
    )
    monkeypatch.setattr(sharding, "to_float8", partial(float8.to_float8, emulate=True))
    monkeypatch.setattr(DualForce, "compile_layers", partialmethod(DualForce.compile_layers, backend="eager"))
    wanted, found = losses(exact), losses(rounded)
    assert found == pytest.approx(wanted, rel=ROUNDING)
    assert found[1:] != wanted[1:]
