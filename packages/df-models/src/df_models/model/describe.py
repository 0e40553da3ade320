"""What a model costs: parameters by part, floating-point operations per latent frame, memory to train and to run.

Operations are those of one latent frame against a full cache (:mod:`df_models.model.flops`); the memory of a training
step is that of :mod:`df_models.model.memory`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from df_models.encoders.registry import audio_lookahead
from df_models.model.config import DualForceConfig
from df_models.model.dualforce import DualForce
from df_models.model.flops import frame_flops, video_tokens
from df_models.model.fusion import FusionLayer
from df_models.model.memory import Step, TrainingMemory, training_memory
from df_models.time import FPS, SLOTS, SPATIAL_STRIDE

BYTES_BF16 = 2


@dataclass(frozen=True)
class Workload:
    """What is generated or trained on.

    Attributes:
        size: side of the square video in pixels.
        frames: pixel frames of a training clip.
        batch: clips trained on at once.
        window, sinks: of the cache.
    """

    size: int = 512
    frames: int = 33
    batch: int = 1
    window: int = 8
    sinks: int = 1


@dataclass(frozen=True)
class Latency:
    """How much later a frame can be shown than it is spoken, computing time apart, in seconds.

    Attributes:
        chunk: latent frames denoised together; the first of their pixel frames waits for the last one's audio.
        future: audio that the model hears ahead (``audio_future``).
        encoder: audio after a pixel frame that the audio encoder's features depend on; None: all of the recording.
        encoder_id: who that is.
    """

    chunk: float
    future: float
    encoder: float | None
    encoder_id: str

    @property
    def total(self) -> float | None:
        """The sum; None: the whole recording must be there first."""
        return None if self.encoder is None else self.chunk + self.future + self.encoder

    def __str__(self) -> str:
        """Return the sum and its parts."""
        parts = f"chunk {self.chunk:.2f} s + audio_future {self.future:.2f} s"
        if self.total is None:
            return f"the whole recording, as {self.encoder_id} states no lookahead (then {parts})"
        return f"{self.total:.2f} s = {parts} + {self.encoder_id} {self.encoder:.2f} s"


def latency_of(config: DualForceConfig, chunk: int = 1, audio_future: int | None = None) -> Latency:
    """Return what a model must wait for, with ``chunk`` latent frames denoised together.

    Args:
        audio_future: slots that it is told to hear ahead; None: all that it can.
    """
    if not config.hears:
        return Latency(chunk * SLOTS / FPS, 0.0, 0.0, "no audio encoder")
    future = config.audio_future if audio_future is None else audio_future
    return Latency(chunk * SLOTS / FPS, future / FPS, audio_lookahead(config.audio_encoder), config.audio_encoder)


@dataclass(frozen=True)
class Description:
    """Costs of one configuration under one workload; memory in bytes.

    Attributes:
        training, training_all_kept: of a step in bfloat16 on one device, each layer recomputed, and none.
    """

    config: DualForceConfig
    workload: Workload
    parameters: dict[str, int]
    flops: dict[str, int]
    weights_bytes: int
    cache_bytes: int
    training: TrainingMemory
    training_all_kept: TrainingMemory

    @property
    def total_parameters(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())

    @property
    def total_flops(self) -> int:
        """All operations per latent frame and denoising step."""
        return sum(self.flops.values())


def describe(config: DualForceConfig, workload: Workload) -> Description:
    """Work out what a configuration costs; nothing is allocated."""
    with torch.device("meta"):
        model = DualForce(config)
    parameters = count_parameters(model)
    step = Step(workload.size, workload.frames, workload.batch)
    return Description(
        config,
        workload,
        parameters,
        count_flops(config, workload),
        sum(p.numel() * p.element_size() for p in model.bfloat16().parameters()),
        count_cache_bytes(config, workload),
        training_memory(config, step),
        training_memory(config, replace(step, recomputed=0)),
    )


def count_parameters(model: DualForce) -> dict[str, int]:
    """Return the number of parameters of each part."""

    def size(*modules: torch.nn.Module | None) -> int:
        return sum(p.numel() for module in modules if module is not None for p in module.parameters())

    layers = [layer for layer in model.fusion if isinstance(layer, FusionLayer)]
    bridge = sum(size(layer.to_video, layer.to_structure) for layer in layers)
    if model.audio is None:
        bridge = size(model.fusion)  # with the gates, which else count with the audio's
    return {
        "video tower": size(model.video),
        "structure tower": size(model.structure),
        "bridge": bridge,
        "audio": size(model.audio, model.fusion) - bridge,
        "reference": size(model.reference),
        "flame head": size(model.flame),
    }


def count_flops(config: DualForceConfig, workload: Workload) -> dict[str, int]:
    """Return operations per part for one latent frame and one denoising step."""
    tokens = video_tokens(config, *latent_side(workload.size))
    return frame_flops(config, tokens, workload.window + workload.sinks)


def latent_side(size: int) -> tuple[int, int]:
    """Return height and width of the latent of a square video."""
    return size // SPATIAL_STRIDE, size // SPATIAL_STRIDE


def count_cache_bytes(config: DualForceConfig, workload: Workload, element: int = BYTES_BF16) -> int:
    """Return the size of the cache's rings for one sequence: keys, rotated keys and values."""
    tokens, places = video_tokens(config, *latent_side(workload.size)), workload.window + workload.sinks - 1
    widths = config.num_layers * tokens * config.dim
    widths += config.structure_layers * SLOTS * config.structure_width * config.has_structure
    if config.causal_bridge:
        sources = SLOTS * config.bridge_to_video + tokens * config.bridge_to_structure
        widths += config.fusion_depth * sources * config.bridge_width
    return 3 * places * widths * element


def render(name: str, description: Description) -> str:
    """Return the description as a table for people."""
    load = description.workload
    total, flops = description.total_parameters, description.total_flops
    lines = [f"{name}: {total / 1e6:.1f} M parameters", "", f"  {'part':<18}{'parameters':>14}{'GFLOP per frame':>18}"]
    for part, count in description.parameters.items():
        if not count:
            continue  # the model has no such part
        done = description.flops.get(part)
        cost = "once a clip" if part == "reference" else "training" if done is None else f"{done / 1e9:.3f}"
        lines.append(f"  {part:<18}{count:>14,}{cost:>18}")
    lines += [
        f"  {'total':<18}{total:>14,}{flops / 1e9:>18.3f}",
        "",
        f"  One latent frame (4 pixel frames) of {load.size} x {load.size}, one denoising step, "
        f"window {load.window} + {load.sinks} sinks.",
        f"  To run:   weights {_gib(description.weights_bytes)} + cache {_gib(description.cache_bytes)} (bfloat16)",
        f"  To train: {_gib(description.training.peak)} with every layer recomputed, "
        f"{_gib(description.training_all_kept.peak)} with none, of which {_gib(description.training.state)} float32 "
        f"weights, AdamW and average; {load.batch} x {load.frames} frames, bfloat16, one device",
        f"  Latency before computing: {latency_of(description.config)}",
    ]
    return "\n".join(lines)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"
