"""The settings of a rollout."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from df_models.settings import FrozenModel, Location, validate_config

Solver = Literal["euler", "heun"]
Start = Literal["reference", "generate"]
StructStart = Literal["previous", "noise"]

MOST_GUIDANCE = 20.0
"""No larger scale of guidance is taken. At 20 the quickstart's mouth follows what it is guided by less than at 5, and
the face is another one: identity distance 0.6 instead of 0.2 (`benchmarks/results/2026-11-28-control-limits-*`)."""

TRUTH = "truth"
"""`structure_from`: the true structure of the clips, where they have one."""
OTHERS = "others"
"""`structure_from`: the true structure of the next clip, of another person where there is one: a control for
:data:`TRUTH`."""


class RolloutSettings(FrozenModel):
    """How to generate, frame by frame, with a trained model.

    Attributes:
        steps: solver steps per chunk; fewer are faster and rougher.
        structure_steps: solver steps after which the structure is clean and leads the video; null means `steps`.
        shift: Wan's shift of the video schedule, `s u / (1 + (s - 1) u)`.
        structure_shift: the same for the structure schedule.
        solver: `euler` (one model call per step) or `heun` (more exact; two, save for the last step).
        window: most recent latent frames (160 ms each) that are visible, the current chunk included.
        sinks: first latent frames that stay visible for ever, beyond the window; `sinks + window` is best the length of
            a training clip in latent frames.
        chunk: latent frames denoised together; each adds 160 ms of latency. null: the whole clip at once, without
            `window` and `sinks`, in memory that grows with it: for models with one noise level per clip
            (`objective.history.mode: one_level` of training), which generate in no other way.
        audio_future: slots of 40 ms that are heard ahead of a latent frame, at most the model's own `audio_future`;
            null means all. Fewer are less latency, for models that learnt it (`objective.shorten_audio` of training).
        start: `reference`: latent frame 0 *is* the portrait; `generate`: frame 0 is generated too.
        struct_start: `previous`: the structure starts at the model's `sigma_structure_max` from the previous frame's
            structure plus noise (the mean before frame 0); `noise`: it starts from pure noise.
        structure_from: where the structure comes from that the model is given whole; null: it makes its own. A run or
            model makes it first, from the same audio and portrait and with its own rollout; `truth` is the true
            structure of the clips, for samples of training and evaluation alone; `others` that of the next clip,
            of another person where there is one, for evaluation alone: what `truth` is compared with.
        blinks: natural blinks a minute, for a model that learnt to be given its eyelids (`objective.give_fields` of
            training, a group of its own: `[eyelids]`); a motion that gives them goes before. null: as people at rest
            blink, 17, and none by a model that did not learn it; 0: the model makes its own.
        context_noise: sigma at which finished frames enter the cache (0 clean; 0.02 is a usual small value).
        audio_guidance: scale of classifier-free guidance on the audio; 1 is off, another value adds one evaluation of
            the model to each.
        text_guidance: the same on the text, against the null text (zero rows), which `objective.drop_text` of training
            teaches; each is measured against the same prediction with all conditions.
        structure_guidance: the same on the frame's own structure, for the video alone, against structure of pure noise,
            which `objective.structure_tail` of training teaches (10 % of the frames by default). Worth it where the
            structure is given; from about 3 on the picture breaks.
    """

    steps: int = Field(default=12, ge=1)
    structure_steps: int | None = Field(default=None, ge=1)
    shift: float = Field(default=3.0, gt=0, allow_inf_nan=False)
    structure_shift: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    solver: Solver = "euler"
    window: int = Field(default=8, ge=1)
    sinks: int = Field(default=1, ge=0)
    chunk: int | None = Field(default=1, ge=1)
    audio_future: int | None = Field(default=None, ge=0)
    start: Start = "reference"
    struct_start: StructStart = "previous"
    structure_from: Location | None = None
    blinks: float | None = Field(default=None, ge=0, le=60, allow_inf_nan=False)
    context_noise: float = Field(default=0.0, ge=0, lt=1)
    audio_guidance: float = Field(default=1.0, ge=0, le=MOST_GUIDANCE)
    text_guidance: float = Field(default=1.0, ge=0, le=MOST_GUIDANCE)
    structure_guidance: float = Field(default=1.0, ge=0, le=MOST_GUIDANCE)


class RolloutConfig(RolloutSettings):
    """Settings of a rollout that fit together."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.chunk is not None and self.window < self.chunk:
            raise ValueError(f"window={self.window} must be at least chunk={self.chunk}: the chunk must fit into it")
        if self.structure_steps is not None and self.structure_steps > self.steps:
            raise ValueError(f"structure_steps={self.structure_steps} must not be above steps={self.steps}")
        return self


class RolloutChanges(RolloutSettings):
    """Settings to change from a run's own: those that were given, whatever their values."""

    def applied_to(self, base: RolloutConfig) -> RolloutConfig:
        """`base` with the settings that were given.

        Raises:
            UserError: they do not fit together.
        """
        return validate_config(RolloutConfig, base.model_dump() | self.model_dump(), "rollout")

    @model_serializer(mode="wrap")
    def _only_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class GenerateConfig(FrozenModel):
    """What `df-infer generate` goes by, as a run's `config.yaml` holds it beside the settings of training.

    Attributes:
        rollout: how to generate; the command's flags (`--steps` for `rollout.steps`) change single settings.
    """

    rollout: RolloutConfig = RolloutConfig()
