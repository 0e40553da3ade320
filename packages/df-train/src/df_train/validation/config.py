"""The settings of validation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from df_models.settings import FrozenModel

HeldOutHistory = Literal["independent", "clean_past", "teacher_forcing", "one_level"]


class ValidationConfig(FrozenModel):
    """Losses of held-out clips, with the averaged weights; noise and noise levels are the same in every run.

    Attributes:
        every: steps from one measurement to the next; one more follows the last step. 0: none at all.
        clips: the first so many of the `val` split, in their stored order; a split that holds fewer is taken whole.
        histories: what the frames before those measured look like, one figure each. `independent`: every frame has its
            own noise level. `clean_past`: all frames before a random one are clean. `teacher_forcing`: every frame sees
            a separate, clean copy of its past. `one_level`: all frames of a stream have the same level.
            (`error_recycling` is none of them: it carries a run's own errors, so that two runs would not be measured
            alike.)
    """

    every: int = Field(default=0, ge=0)
    clips: int = Field(default=16, ge=1)
    histories: tuple[HeldOutHistory, ...] = Field(default=("independent", "clean_past"), min_length=1)

    @field_validator("histories")
    @classmethod
    def _each_once(cls, histories: tuple[HeldOutHistory, ...]) -> tuple[HeldOutHistory, ...]:
        if len(set(histories)) != len(histories):
            raise ValueError("name each history once")
        return histories
