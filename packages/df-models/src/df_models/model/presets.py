"""The named sizes of the model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from df_models.errors import UserError, nearest
from df_models.model.config import DualForceConfig

_PRETRAINED_ENCODERS: dict[str, Any] = {
    "audio_dim": 1024,
    "reference_dim": 768,
    "video_vae": "wan",
    "audio_encoder": "hubert-large",
    "reference_encoder": "dinov2-base",
    "face_crop": "yunet:1.3:-0.03",
}

PRESETS: dict[str, DualForceConfig] = {
    "quickstart": DualForceConfig(
        dim=512,
        num_layers=2,
        num_heads=8,
        ffn_dim=1536,
        structure_width=128,
        structure_layers=2,
        structure_heads=2,
        structure_ffn_dim=512,
        fusion_depth=2,
        bridge_width=128,
        bridge_heads=2,
        audio_width=128,
        audio_heads=2,
    ),
    "poc": DualForceConfig(
        dim=768,
        num_layers=12,
        num_heads=12,
        ffn_dim=3072,
        structure_width=384,
        structure_layers=12,
        structure_heads=6,
        structure_ffn_dim=1536,
        fusion_depth=8,
        bridge_width=384,
        bridge_heads=6,
        audio_width=384,
        audio_heads=6,
        reference_width=256,
        flame_width=256,
        video_size=256,
        **_PRETRAINED_ENCODERS,
    ),
    "dualforce-1.5b": DualForceConfig(
        dim=1536,
        num_layers=20,
        num_heads=12,
        ffn_dim=6144,
        structure_width=1536,
        structure_layers=20,
        structure_heads=12,
        structure_ffn_dim=6144,
        text_dim=4096,
        fusion_depth=8,
        bridge_width=1536,
        bridge_heads=12,
        audio_width=768,
        audio_heads=6,
        reference_width=512,
        flame_width=512,
        video_size=512,
        **_PRETRAINED_ENCODERS,
    ),
    "dualforce-wan": DualForceConfig(
        dim=1536,
        num_layers=20,
        num_heads=12,
        ffn_dim=8960,
        structure_width=512,
        structure_layers=20,
        structure_heads=4,
        structure_ffn_dim=2048,
        text_dim=4096,
        fusion_depth=8,
        bridge_width=512,
        bridge_heads=4,
        audio_width=768,
        audio_heads=6,
        reference_width=512,
        flame_width=512,
        video_size=512,
        **_PRETRAINED_ENCODERS,
    ),
}


def presets() -> tuple[str, ...]:
    """Return the names that :meth:`df_models.DualForce.from_preset` knows."""
    return tuple(PRESETS)


def preset_config(name: str, **overrides: Any) -> DualForceConfig:
    """Return a preset's configuration with some settings replaced.

    Raises:
        UserError: the preset or a setting is unknown, or the result does not fit together.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}{nearest(str(name), PRESETS)}; there are: {', '.join(PRESETS)}")
    return DualForceConfig.from_dict({**asdict(PRESETS[name]), **overrides})
