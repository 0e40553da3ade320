"""Clips whose inputs are swapped: which clip another one lends what is its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from df_eval.clips import EvalClip
from df_models.errors import UserError


def partners(clips: Sequence[EvalClip]) -> list[int]:
    """For each clip the next one of another person; of the same person where all clips are of one."""
    count = len(clips)
    following = [[(index + step) % count for step in range(1, count)] for index in range(count)]
    others = [[j for j in after if clips[j].identity != clip.identity] for after, clip in zip(following, clips)]
    return [(other or after or [index])[0] for index, (other, after) in enumerate(zip(others, following))]


def with_structure_of(clips: Sequence[EvalClip], others: Sequence[int]) -> list[EvalClip]:
    """The clips, each with the true structure of another one."""
    lent = (clips[other] for other in others)
    return [
        replace(clip, structure_TV=o.structure_TV, flame_TV=o.flame_TV) for clip, o in zip(clips, lent, strict=True)
    ]


def with_others_structure(clips: Sequence[EvalClip]) -> list[EvalClip]:
    """The clips, each with the true structure of the next one, of another person where there is one.

    Raises:
        UserError: there is one clip alone.
    """
    if len(clips) < 2:
        raise UserError("rollout.structure_from=others: there is no other clip; measure at least two (clips=2)")
    return with_structure_of(clips, partners(clips))
