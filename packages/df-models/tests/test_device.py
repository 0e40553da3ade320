"""Devices by name, and a device without float64: the model, its cache and its backward pass run on one.

No machine here has Apple's MPS, so a stand-in plays it: tensors "on" it are wrappers around CPU tensors that refuse
float64 and complex numbers, and refuse to meet tensors that were left on the host.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from df_models import UserError
from df_models.device import check_device_name, choose_device, widest_float
from df_models.model import tower

LABEL = torch.device("meta")
"""What the stand-in calls itself: PyTorch's own indexing asks for a real MPS where a tensor says that it is on one."""
REFUSED = (torch.float64, torch.complex64, torch.complex128)


@pytest.mark.parametrize("name", ["xpu", "gpu", "cuda:x", "CUDA", "", "mps:0", "cpu:0", "meta"])
def test_unknown_devices_are_told_in_one_line(name):
    for check in (check_device_name, choose_device):
        with pytest.raises(UserError, match="unknown device") as told:
            check(name)
        assert "\n" not in str(told.value) and "cuda:N or mps" in str(told.value)


def test_devices_that_are_not_there_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for name, message in (("cuda", "has no CUDA device"), ("cuda:1", "has no CUDA device"), ("mps", "no device 'mps'")):
        with pytest.raises(UserError, match=message):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="this machine has cuda:0, cuda:1"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps").type == "mps" and widest_float(torch.device("mps")) == torch.float32


class _OnMps(Tensor):
    """A tensor that says it is on MPS; ``inner`` holds its numbers."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> _OnMps:
        assert inner.dtype not in REFUSED, f"MPS has no {inner.dtype}"
        places = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        return Tensor._make_wrapper_subclass(cls, inner.shape, **places, dtype=inner.dtype, device=LABEL)

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


class _Mps(TorchDispatchMode):
    """Catches what goes to MPS."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


def _dispatch(func, args, kwargs):
    device = kwargs.get("device")
    leaves = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = any(isinstance(x, _OnMps) for x in leaves)
    moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if there and not moves:
        left = [x for x in leaves if not isinstance(x, _OnMps) and x.ndim]
        assert not left, f"{func} mixes MPS and the host"
    target = device.type == LABEL.type if device is not None else there
    if func is torch.ops.aten.copy_.default:
        target = isinstance(args[0], _OnMps)
    plain = lambda x: x.inner if isinstance(x, _OnMps) else x  # noqa: E731
    if device is not None and target:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*tree_map(plain, args), **tree_map(plain, kwargs))
    if func._schema.name.endswith("_") and isinstance(args[0], Tensor):
        return args[0]
    return tree_map(lambda x: _OnMps(x) if target and isinstance(x, Tensor) else x, out)


@contextlib.contextmanager
def _moved(model, clip):
    """The model and the clip on the stand-in."""
    with pytest.MonkeyPatch.context() as patch, _Mps():
        patch.setattr(tower, "widest_float", lambda _device: widest_float(torch.device("mps")))
        for module in model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    module._parameters[name] = torch.nn.Parameter(_OnMps(parameter.detach()))
            for name, buffer in list(module._buffers.items()):
                module._buffers[name] = _OnMps(buffer)
        yield model, {name: _OnMps(value) for name, value in clip.items()}


def _back(x):
    return x.inner if isinstance(x, _OnMps) else x


@pytest.mark.parametrize("mask", ["frame", "causal"])
def test_the_model_runs_and_learns_on_a_device_without_float64(build, make_clip, difference, mask):
    here, there = (build("dualforce-wan", num_layers=2, structure_layers=2, bridge_mask=mask) for _ in range(2))
    clip = make_clip(here, 3)
    wanted = here(**clip)
    (wanted.video.square().mean() + wanted.structure.square().mean()).backward()
    with _moved(there, clip) as (model, moved):
        found = model(**moved)
        assert isinstance(found.video, _OnMps)
        (found.video.square().mean() + found.structure.square().mean()).backward()
        gradient = model.video.blocks[0].ffn[0].weight.grad
    assert difference(_back(found.video.detach()), wanted.video.detach()) < 1e-5
    assert difference(_back(gradient), here.video.blocks[0].ffn[0].weight.grad) < 1e-4


@torch.no_grad()
def test_cached_generation_runs_on_a_device_without_float64(build, make_clip, rollout, difference):
    here, there = (build(bridge_mask="causal") for _ in range(2))
    clip = make_clip(here, 4)
    wanted = rollout(here, clip, 1, 3, 1)
    with _moved(there, clip) as (model, moved):
        found = rollout(model, moved, 1, 3, 1)
    for ours, theirs in zip(found, wanted):
        assert difference(_back(ours), theirs) < 1e-5


def test_the_stand_in_refuses_what_mps_refuses():
    with _Mps(), pytest.raises(AssertionError, match=r"MPS has no torch\.float64"):
        torch.zeros(2, dtype=torch.float64).to(LABEL)
    with _Mps(), pytest.raises(AssertionError, match="mixes MPS and the host"):
        torch.zeros(2).to(LABEL) + torch.zeros(2)
