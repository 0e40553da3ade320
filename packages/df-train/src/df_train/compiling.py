"""Compiled attention on clips of several lengths."""

from __future__ import annotations

_USUAL = 8
"""Default of `torch._dynamo.config.recompile_limit`, which sample videos and validation have for themselves."""


def allow_lengths(count: int) -> None:
    """Let a compiled function be compiled for `count` lengths of clips besides what torch allows anyway.

    FlexAttention is compiled once for each shape (`df_models.attention`). Beyond torch's limit it would run
    uncompiled, which makes all scores of a sequence with itself at once.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _USUAL + count)
