"""The memory of a training step, found by taking one on the meta device: sizes are counted, nothing is computed.

A pass and its backward pass run on tensors that have shapes and no data. Every storage that comes into being adds its
bytes, and takes them away when nothing holds it any more, so autograd itself says what it keeps. Attention keeps its
inputs, its output and one number for each query, as the fused kernels of SDPA and FlexAttention do.

Layers of a kind are alike, so a model of one layer of each kind tells what the whole one keeps, in a second or two for
any preset (a test compares the two).

Parameters, AdamW's two moments and the averaged weights are float32. What computes holds gathered parameters, and makes
gradients, in the computing dtype, block by block from :data:`BLOCKS_FROM` parameters on (df-train's FSDP2).
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from df_models.model.config import DualForceConfig
from df_models.model.dualforce import DualForce
from df_models.text import TEXT_TOKENS
from df_models.time import SLOTS, SPATIAL_STRIDE, latent_length

FLOAT32 = 4
STATE_COPIES = 4
"""Float32 numbers for each parameter, all the time: itself, two moments, its average."""
BLOCKS_FROM = 50_000_000
"""Parameters from which df-train gathers block by block; below, one gathering costs less than one for each block."""
BLOCKS_AT_ONCE = 2
"""Gathered at once: the block that computes, and the next."""
REFERENCE_TOKENS = 257
"""Reference features that are given: a 224-pixel CLIP ViT-L/14 gives so many. They hardly count."""


@dataclass(frozen=True)
class Step:
    """What a step is taken on, and how.

    Attributes:
        size: side of the square video in pixels.
        frames: pixel frames of a clip.
        batch: clips.
        dtype: of what is computed.
        recomputed: every which layer is computed anew in the backward pass; 0 for none.
    """

    size: int
    frames: int
    batch: int
    dtype: torch.dtype = torch.bfloat16
    recomputed: int = 1


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one process that has all parameters to itself; only the state lasts from step to step.

    Attributes:
        state: parameters, moments and average, in float32.
        forward: gathered parameters and activations when the forward pass is over.
        backward: gathered parameters and gradients in the last layer's backward pass.
        working: what the backward pass of one layer holds besides.
        summing: gathered parameters and gradients while the last are summed, when all activations are gone.
    """

    state: int
    forward: int
    backward: int
    working: int
    summing: int

    @property
    def peak(self) -> int:
        """The most that a step takes."""
        return self.state + max(self.forward + self.working, self.backward + self.working, self.summing)


def training_memory(config: DualForceConfig, step: Step) -> TrainingMemory:
    """Work out the memory of a training step of df-train on one device."""
    with torch.device("meta"):
        model = DualForce(config)
    parameters = sum(p.numel() for p in model.parameters())
    at_once = parameters
    if parameters >= BLOCKS_FROM:
        largest = max(sum(p.numel() for p in layer.parameters()) for layer in model.layers())
        at_once = min(parameters, BLOCKS_AT_ONCE * largest)
    copy = step.dtype.itemsize * at_once
    held, working = activations(config, step)
    return TrainingMemory(
        state=STATE_COPIES * FLOAT32 * parameters,
        forward=copy + held,
        backward=copy + copy + FLOAT32 * (parameters - at_once),
        working=working,
        summing=copy + copy + FLOAT32 * at_once + FLOAT32 * parameters,
    )


def activations(config: DualForceConfig, step: Step) -> tuple[int, int]:
    """Return what is held when the forward pass is over, and what the backward pass holds above that at most."""
    depths = {"fusion": config.fusion_layers, "video": config.num_layers, "structure": config.structure_layers}
    one = replace(
        config,
        num_layers=min(1, config.num_layers),
        structure_layers=min(1, config.structure_layers),
        fusion_depth=min(1, config.fusion_depth),
    )
    kept = taken(one, replace(step, recomputed=0))
    anew = taken(one, replace(step, recomputed=1)) if step.recomputed else kept
    held = kept.held - sum(kept.layers.values())
    for kind in kept.layers:
        for layer in range(depths[kind]):
            again = step.recomputed and layer % step.recomputed == 0
            held += (anew if again else kept).layers[kind]
    return held, anew.above


@dataclass(frozen=True)
class Taken:
    """Bytes of a step on the meta device, without parameters and their gradients.

    Attributes:
        held: between the two passes.
        above: at most above that in the backward pass.
        layers: what each kind of layer has added in the forward pass, all its layers together.
    """

    held: int
    above: int
    layers: dict[str, int]


def taken(config: DualForceConfig, step: Step) -> Taken:
    """Take a step on the meta device."""
    with torch.device("meta"):
        model = DualForce(config).to(step.dtype)
        model.gradient_checkpointing = step.recomputed
        model.attention_backend = "sdpa"
        inputs = inputs_of(config, step)
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(_let_go)
        given = [*model.state_dict(keep_vars=True).values(), *(value for value in inputs.values() if value is not None)]
        with _Storages(given) as storages:
            layers = _watch(model, storages)
            velocity = model(**inputs)
            held, done = storages.held, dict(layers)
            errors = [stream.square().mean() for stream in velocity if stream.numel()]
            torch.stack(errors).sum().backward()
    return Taken(held, storages.peak - held, done)


class _Storages(TorchDispatchMode):
    """Adds up the storages that operations make, for as long as each lives; not those of what is given."""

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._given = {tensor.untyped_storage()._cdata for tensor in given}
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.held)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or key in self._given:
            return

        def gone(_: Any) -> None:
            self.held -= size
            del self._alive[key]

        self.held += size
        self._alive[key] = weakref.ref(storage, gone)


def _watch(model: DualForce, storages: _Storages) -> dict[str, int]:
    """Return what will have been added by each kind of layer."""
    added: dict[str, int] = {}
    stacks = {"fusion": model.fusion}
    stacks |= {name: tower.blocks for name in ("video", "structure") if (tower := getattr(model, name)) is not None}
    for kind, layers in stacks.items():
        for layer in layers:
            layer.register_forward_pre_hook(lambda *_, kind=kind: _count(added, kind, -storages.held))
            layer.register_forward_hook(lambda *_, kind=kind: _count(added, kind, storages.held))
    return added


def _count(added: dict[str, int], kind: str, size: int) -> None:
    added[kind] = added.get(kind, 0) + size


def _let_go(parameter: Tensor) -> None:
    parameter.grad = None


def inputs_of(config: DualForceConfig, step: Step) -> dict[str, Any]:
    """Return a noisy clip of both streams, or of the one that there is, in float32."""
    batch, frames, side = step.batch, latent_length(step.frames), step.size // SPATIAL_STRIDE
    inputs: dict[str, Any] = dict.fromkeys(
        ("video", "structure", "audio", "sigma_video", "sigma_structure", "reference_latent")
    )
    if config.has_video:
        inputs["video"] = torch.zeros(batch, frames, config.latent_channels, side, side)
        inputs["sigma_video"] = torch.zeros(batch, frames)
        inputs["reference_latent"] = torch.zeros(batch, config.latent_channels, side, side)
    if config.has_structure:
        inputs["structure"] = torch.zeros(batch, frames, SLOTS, config.structure_dim)
        inputs["sigma_structure"] = torch.zeros(batch, frames)
    if config.audio_dim:
        inputs["audio"] = torch.zeros(batch, frames, SLOTS, config.audio_dim)
    if config.reads_reference:
        inputs["reference_tokens"] = torch.zeros(batch, REFERENCE_TOKENS, config.reference_dim)
    if config.text_dim:
        inputs["text"] = torch.zeros(batch, TEXT_TOKENS, config.text_dim)
    return inputs
