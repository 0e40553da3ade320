"""Floating-point operations of the model, counted from its sizes.

Those of matrix products and attention, two per multiply-add, as ``torch.utils.flop_counter`` counts them; but attention
is counted for the pairs of latent frames that a mask lets see each other, and not for what it hides.
"""

from __future__ import annotations

from dataclasses import dataclass

from df_models.attention.masks import FrameLayout, causal_table
from df_models.model.config import DualForceConfig, StructureDiTConfig, VideoDiTConfig
from df_models.text import TEXT_TOKENS
from df_models.time import SLOTS

BACKWARD = 2
"""A product's two gradients, of its input and its weight, take as many operations as the product, each."""


@dataclass(frozen=True)
class _Frames:
    """Latent frames of a pass: how many go through the layers, pairs that see each other, how many come out."""

    through: int
    pairs: int
    out: int


def video_tokens(config: DualForceConfig | VideoDiTConfig, height: int, width: int) -> int:
    """Return the video tokens of one latent frame of ``height`` x ``width`` cells; none in a model without video."""
    if isinstance(config, DualForceConfig) and not config.has_video:
        return 0
    _, rows, columns = config.patch_size
    return (height // rows) * (width // columns)


def frame_flops(config: DualForceConfig, tokens: int, places: int) -> dict[str, int]:
    """Return operations per part of one latent frame of ``tokens`` video tokens that sees ``places`` frames of a cache,
    as :meth:`DualForce.step` runs it."""
    return _by_part(config, tokens, _Frames(1, places, 1))


def clip_flops(
    config: DualForceConfig, layout: FrameLayout, tokens: int, *, features: int = 0, flame: bool = False
) -> int:
    """Return operations of one pass of :meth:`DualForce.forward` over one clip.

    Args:
        layout: its frames; with a history copy both go through the layers.
        tokens: video tokens per frame.
        features: reference features that are given, 0 for none.
        flame: whether the FLAME head reads the prediction.
    """
    predicted = len(layout) - sum(layout.history)
    frames = _Frames(len(layout), int(causal_table(layout).sum()), predicted)
    products = _context_products(config, features)
    if flame:
        products += predicted * SLOTS * config.flame_width * (config.structure_dim + config.flame_dim)
    return sum(_by_part(config, tokens, frames, features > 0).values()) + 2 * products


def training_flops(
    config: DualForceConfig,
    layout: FrameLayout,
    tokens: int,
    *,
    features: int = 0,
    flame: bool = False,
    frozen: bool = False,
) -> int:
    """Return operations of a training step on one clip: forward and backward, nothing computed twice.

    Args:
        frozen: the weights get no gradients of their own, which is half of the backward pass. An adapter's small
            products, and the other half of attention's backward pass, are then left out: less is told than is done.
    """
    backward = BACKWARD // 2 if frozen else BACKWARD
    return (1 + backward) * clip_flops(config, layout, tokens, features=features, flame=flame)


def _by_part(config: DualForceConfig, tokens: int, frames: _Frames, reference: bool = True) -> dict[str, int]:
    video, structure = config.video, config.structure
    area = config.patch_size[1] * config.patch_size[2]
    text = TEXT_TOKENS if config.text_dim else 0
    context = text + (config.reference_tokens if config.reads_reference and reference else 0)
    structure_text = text if config.structure_text else 0
    video_edges = tokens * area * video.dim * (video.in_dim * frames.through + video.out_dim * frames.out)
    structure_edges = (
        SLOTS * structure.vector_dim * structure.dim * ((1 + structure.known) * frames.through + frames.out)
    )
    of_video = 2 * (video_edges + _tower_products(video, tokens, frames, context))
    of_structure = 2 * (structure_edges + _tower_products(structure, SLOTS, frames, structure_text))
    return {
        "video tower": of_video if config.has_video else 0,
        "structure tower": of_structure if config.has_structure else 0,
        "bridge": 2 * config.fusion_depth * _bridge_products(config, tokens, frames),
        "audio": 2 * _audio_products(config, tokens) * frames.through,
    }


def _tower_products(tower: VideoDiTConfig | StructureDiTConfig, tokens: int, frames: _Frames, context: int) -> int:
    dim, sequence = tower.dim, frames.through * tokens
    layer = sequence * (4 * dim * dim + 2 * dim * tower.ffn_dim) + 2 * frames.pairs * tokens * tokens * dim
    cross = sequence * 2 * dim * dim + 2 * sequence * context * dim if context else 0
    return tower.num_layers * (layer + cross) + frames.through * (tower.freq_dim * dim + 7 * dim * dim)


def _bridge_products(config: DualForceConfig, tokens: int, frames: _Frames) -> int:
    width, pairs = config.bridge_width, frames.pairs if config.causal_bridge else frames.through
    video, structure = tokens * config.dim * width, SLOTS * config.structure_width * width
    directions = config.bridge_to_video + config.bridge_to_structure
    return directions * (frames.through * (2 * video + 2 * structure) + 2 * pairs * tokens * SLOTS * width)


def _audio_products(config: DualForceConfig, tokens: int) -> int:
    """Return what each frame's window takes, and both towers to hear it."""
    if not config.hears:
        return 0
    width = config.audio_width
    window = config.audio_past + SLOTS + config.audio_future
    embedding = 2 * width * (window * (config.audio_dim + 1) + SLOTS * width)
    towers = [(tokens, config.dim)] if config.has_video else []
    towers += [(SLOTS, config.structure_width)] if config.has_structure else []
    both = 0
    for count, dim in towers:
        both += 2 * count * dim * width + 2 * SLOTS * width * width + 2 * count * SLOTS * width
    return embedding + config.fusion_depth * both


def _context_products(config: DualForceConfig, features: int) -> int:
    """Return what text and reference take once a clip: embedded, and every layer's keys and values of them."""
    products = 0
    if config.text_dim:
        towers: list[VideoDiTConfig | StructureDiTConfig] = [config.video] if config.has_video else []
        towers += [config.structure] if config.structure_text and config.has_structure else []
        for tower in towers:
            products += TEXT_TOKENS * (tower.text_dim * tower.dim + tower.dim**2 * (1 + 2 * tower.num_layers))
    if config.reads_reference and features:
        width, queries = config.reference_width, config.reference_tokens
        products += features * width * (config.reference_dim + 2 * width + 2 * queries)
        products += queries * width * (6 * width + config.dim)
        products += queries * 2 * config.dim**2 * config.num_layers
    return products
