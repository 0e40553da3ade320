"""Stages that turn a raw video into a clip: decode, shot cuts, face and crop, landmarks, structure, quality.

Each module has one stage: a typed input, a typed output, pure functions in the middle. A stage that refuses its
input raises :class:`Rejected`; the build writes the reason and the scores into the ledger.
"""

from __future__ import annotations

from df_data.stages.rejection import Rejected

__all__ = ["Rejected"]
