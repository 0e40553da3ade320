"""Settings of `task: distill`."""

from __future__ import annotations

from pydantic import Field

from df_models.settings import FrozenModel


class DistillConfig(FrozenModel):
    """How the student learns from the teacher, which is the model that it starts from (`model.start_from`).

    Attributes:
        levels: noise levels on the teacher's path from noise to data; it is `rollout` with so many steps. A multiple of
            `rollout.steps`, so that the student is asked for nothing but what it was taught.
        audio_guidance: the teacher's guidance on the audio, which the student learns as its own answer; so
            `rollout.audio_guidance` stays 1.
        text_guidance: the same on the text.
        own_histories: share of the passes whose clips the student generates itself, as history and as what is denoised.
        rounds: how often such a clip is generated upon the one before, the first time upon the true clip. After as many
            rounds as chunks it is what generation chunk by chunk gives.
    """

    levels: int = Field(default=8, ge=1)
    audio_guidance: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    text_guidance: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    own_histories: float = Field(default=0.5, ge=0, le=1)
    rounds: int = Field(default=2, ge=1)
