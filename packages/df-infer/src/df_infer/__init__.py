"""The autoregressive DualForce runtime: generate, stream, speak live, decode, write video with audio."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from df_infer.live.session import Segment, Session
    from df_infer.pipeline import Pipeline

__version__ = "0.1.0"
__all__ = ["Pipeline", "Segment", "Session", "__version__"]
_HOME = {"Pipeline": "pipeline", "Session": "live.session", "Segment": "live.session"}


def __getattr__(name: str) -> Any:
    """Import what is asked for; the package alone imports no torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
