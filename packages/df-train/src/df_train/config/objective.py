"""What is learnt: noise levels, histories, losses, and what is given."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from df_models.flow import HistoryMode
from df_models.settings import FrozenModel, Location
from df_train.config.bends import rising


class HistorySettings(FrozenModel):
    """What the frames before those being learnt look like in training (`df_models.flow.history`).

    Attributes:
        mode: `independent`: every frame its own noise level. `clean_past`: the same, but sometimes all frames before a
            random one are clean. `teacher_forcing`: a separate, little noised copy of the true past. `error_recycling`:
            the same, and that copy sometimes carries errors that the model made before. `one_level`: each stream has
            one noise level for all frames of a clip; the model then makes whole clips only (`rollout.chunk: null`).
        clean_past_probability: `clean_past`: the share of clips whose frames before a random one are clean.
        context_noise_max: the last two modes: the highest noise level of the copy.
        error_probability: `error_recycling`: the share of clips whose copy carries errors.
        error_bank: `error_recycling`: how many errors are kept, the newest.
    """

    mode: HistoryMode = "clean_past"
    clean_past_probability: float = Field(default=0.3, ge=0, le=1)
    context_noise_max: float = Field(default=0.1, ge=0, le=1)
    error_probability: float = Field(default=0.9, ge=0, le=1)
    error_bank: int = Field(default=256, ge=1)


class FlameLossConfig(FrozenModel):
    """The FLAME head on the predicted clean structure; its weight falls along a half cosine.

    Attributes:
        weight: of the loss at step 0; 0 for none.
        weight_end: of the loss after `decay_steps`.
        decay_steps: optimizer steps from the one to the other; a time budget scales what is left of them as it does
            `optim.steps`.
        bends: written by a time budget: pairs of a step and of the `decay_steps` until then.
    """

    weight: float = Field(default=0.1, ge=0)
    weight_end: float = Field(default=0.02, ge=0)
    decay_steps: int = Field(default=1000, ge=0)
    bends: tuple[tuple[int, int], ...] = ()

    @field_validator("bends")
    @classmethod
    def _in_order(cls, bends: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        return rising(bends)


class SyncLossConfig(FrozenModel):
    """The frozen lip-sync expert on the predicted clean mouth region (`df_train.sync`).

    Attributes:
        weight: of the loss; 0 for none. The plan's is 0.3.
        expert: the directory that `task: sync` wrote, a run's `expert/`.
        sigma_max: noise level, as the mean of a window's frames, up to which windows count. 1 counts all: the expert
            reads the mouths that a trained quickstart model predicts at every level (`benchmarks/sync.py`); less suits
            a model whose predictions from high noise are a blur.
        sha256: of the expert; written by the run, which then refuses to go on with another one.
    """

    weight: float = Field(default=0.0, ge=0)
    expert: Location | None = None
    sigma_max: float = Field(default=1.0, gt=0, le=1)
    sha256: str | None = None

    @model_validator(mode="after")
    def _named(self) -> SyncLossConfig:
        if self.weight > 0 and self.expert is None:
            raise ValueError("weight is above 0, but expert names no lip-sync expert; train one with task: sync")
        return self


def _group(names: object) -> object:
    return (names,) if isinstance(names, str) else names


class GivenFieldsConfig(FrozenModel):
    """Named fields of the structure that are given clean in a share of the clips (`df_train.given`).

    Attributes:
        share: of the clips.
        fields: names of the model's structure layout (`pitch`, `expression`), or lists of such that are only given
            together (`[[pitch, yaw, roll], expression]`); a clip is given one or more of them, at random.
    """

    share: float = Field(default=0.0, ge=0, le=1)
    fields: tuple[Annotated[tuple[str, ...], BeforeValidator(_group), Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _named(self) -> GivenFieldsConfig:
        if self.share > 0 and not self.fields:
            raise ValueError("share is above 0, but fields name nothing to give; name fields of the structure")
        return self


class ObjectiveConfig(FrozenModel):
    """Noise levels and losses.

    Attributes:
        video_shift: Wan's shift of the video's noise levels.
        structure_tail: share of frames whose structure gets a noise level above the model's `sigma_structure_max`.
        start_clean: of the clips whose reference image is their first frame, the share whose first frame is given
            clean, as in generation that starts on the portrait.
        video_weight: weight of the video's loss.
        structure_weight: weight of the structure's loss.
        mouth_weight: extra weight of the video cells in the mouth box (0: all cells weigh the same).
        drop_audio: share of clips that are learnt without audio, which guidance on it needs.
        drop_reference: share of clips that are learnt without the reference image.
        drop_text: share of clips that are learnt without text, which guidance on it needs: zero rows, no encoded
            empty prompt, so that no text encoder is needed to make it.
        shorten_audio: share of clips that hear only a random part of the model's `audio_future`, from none of it to
            all, so that `rollout.audio_future` can be less.
        give_structure: share of clips whose structure is given clean, as a whole, and not learnt there, which motion
            transfer needs. 1: structure is a condition; the model learns to make none, and `rollout.structure_from`
            says where it comes from.
        give_fields: single fields of the structure instead, which control needs; the model must have
            `model.overrides.structure_known=true`.
        extra: weights of losses that were added to `df_train.objective.LOSSES` without a setting of their own, by
            their names.
    """

    history: HistorySettings = HistorySettings()
    video_shift: float = Field(default=1.0, gt=0)
    structure_tail: float = Field(default=0.1, ge=0, le=1)
    start_clean: float = Field(default=0.5, ge=0, le=1)
    video_weight: float = Field(default=1.0, ge=0)
    structure_weight: float = Field(default=0.5, ge=0)
    flame: FlameLossConfig = FlameLossConfig()
    mouth_weight: float = Field(default=0.0, ge=0)
    drop_audio: float = Field(default=0.1, ge=0, le=1)
    drop_reference: float = Field(default=0.0, ge=0, le=1)
    drop_text: float = Field(default=0.1, ge=0, le=1)
    shorten_audio: float = Field(default=0.0, ge=0, le=1)
    give_structure: float = Field(default=0.0, ge=0, le=1)
    give_fields: GivenFieldsConfig = GivenFieldsConfig()
    sync: SyncLossConfig = SyncLossConfig()
    extra: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_gift(self) -> ObjectiveConfig:
        if self.give_structure + self.give_fields.share > 1:
            raise ValueError("give_structure and give_fields.share are shares of other clips; together at most 1")
        return self
