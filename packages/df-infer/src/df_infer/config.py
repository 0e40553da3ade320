"""The settings of a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from df_models.errors import UserError, nearest

Solver = Literal["euler", "heun"]
Start = Literal["reference", "generate"]
StructStart = Literal["previous", "noise"]


@dataclass(frozen=True)
class RolloutConfig:
    """How to generate, frame by frame, with a trained model.

    Attributes:
        steps: solver steps per chunk.
        structure_steps: solver steps after which the structure is clean and leads the video; None means ``steps``.
        shift: Wan's shift of the video schedule, ``s u / (1 + (s - 1) u)``.
        structure_shift: the same for the structure schedule.
        solver: ``euler`` (one model call per step) or ``heun`` (two, save for the last step).
        window: most recent latent frames that are visible, the current chunk included.
        sinks: first latent frames that stay visible for ever, beyond the window.
        chunk: latent frames denoised together; each adds 160 ms of latency.
        start: ``reference``: latent frame 0 *is* the portrait; ``generate``: frame 0 is generated too.
        struct_start: ``previous``: the structure starts at the model's ``sigma_structure_max`` from the previous
            frame's structure plus noise (the mean before frame 0); ``noise``: it starts from pure noise.
        context_noise: sigma at which finished frames enter the cache (0 clean; 0.02 is a usual small value).
        audio_guidance: scale of classifier-free guidance on the audio; 1 is off, another value adds one evaluation of
            the model to each.
        text_guidance: the same on the text, against the null text (zero rows), which ``objective.drop_text`` of
            training teaches; each of the two is measured against the same prediction with all conditions.
    """

    steps: int = 12
    structure_steps: int | None = None
    shift: float = 3.0
    structure_shift: float = 1.0
    solver: Solver = "euler"
    window: int = 8
    sinks: int = 1
    chunk: int = 1
    start: Start = "reference"
    struct_start: StructStart = "previous"
    context_noise: float = 0.0
    audio_guidance: float = 1.0
    text_guidance: float = 1.0

    def __post_init__(self) -> None:
        self._at_least("steps", 1)
        self._at_least("chunk", 1)
        self._at_least("sinks", 0)
        self._at_least("window", self.chunk)
        if self.structure_steps is not None and not 1 <= self.structure_steps <= self.steps:
            raise UserError(f"rollout structure_steps={self.structure_steps} must lie in 1..steps ({self.steps})")
        for name in ("shift", "structure_shift"):
            if not getattr(self, name) > 0:
                raise UserError(f"rollout {name}={getattr(self, name)} must be greater than 0")
        if not 0 <= self.context_noise < 1:
            raise UserError(f"rollout context_noise={self.context_noise} must lie in [0, 1)")
        for name in ("audio_guidance", "text_guidance"):
            if not getattr(self, name) >= 0:
                raise UserError(f"rollout {name}={getattr(self, name)} must not be negative; 1 is off")
        self._one_of("solver", get_args(Solver))
        self._one_of("start", get_args(Start))
        self._one_of("struct_start", get_args(StructStart))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RolloutConfig:
        """Build from a mapping such as the ``rollout`` section of a run's config.

        Raises:
            UserError: a key is unknown (the nearest right one is named) or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise UserError(f"unknown rollout setting {name!r}{nearest(name, known)}; known are {', '.join(known)}")
        return cls(**values)

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            reason = " (the chunk must fit into the window)" if name == "window" and least > 1 else ""
            raise UserError(f"rollout {name}={value!r} must be a whole number of at least {least}{reason}")

    def _one_of(self, name: str, options: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in options:
            raise UserError(f"rollout {name}={value!r}{nearest(str(value), options)}; use one of {', '.join(options)}")
