"""The DualForce model: two towers, flow matching, masks, KV cache, frozen encoders.

Names are imported when first used, so ``import df_models`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "DualForce": "model.dualforce",
    "DualForceConfig": "model.config",
    "History": "model.inputs",
    "KVCache": "model.cache",
    "StructureDiT": "model.structure_dit",
    "StructureDiTConfig": "model.config",
    "UserError": "errors",
    "Velocity": "model.dualforce",
    "VideoDiT": "model.video_dit",
    "VideoDiTConfig": "model.config",
    "preset_config": "model.presets",
    "presets": "model.presets",
}

if TYPE_CHECKING:
    from df_models.errors import UserError
    from df_models.model.cache import KVCache
    from df_models.model.config import DualForceConfig, StructureDiTConfig, VideoDiTConfig
    from df_models.model.dualforce import DualForce, Velocity
    from df_models.model.inputs import History
    from df_models.model.presets import preset_config, presets
    from df_models.model.structure_dit import StructureDiT
    from df_models.model.video_dit import VideoDiT

__all__ = [
    "DualForce",
    "DualForceConfig",
    "History",
    "KVCache",
    "StructureDiT",
    "StructureDiTConfig",
    "UserError",
    "Velocity",
    "VideoDiT",
    "VideoDiTConfig",
    "preset_config",
    "presets",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
