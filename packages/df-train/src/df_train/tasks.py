"""What a task asks of a run's model, data and losses: one entry for each, and to add a task is to add its entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TaskName = Literal["model", "video", "distill"]


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        model: settings of the model under `model.overrides`, instead of the preset's or the start's.
        streams: what the model may denoise.
        leaves: roles of a dataset's features that the model does not take over, since nothing reads them.
        defaults: settings of the run instead of the usual defaults, as a tree.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    streams: tuple[str, ...] = ("both", "video", "structure")
    leaves: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


TASKS: dict[TaskName, Task] = {
    "model": Task(),
    "video": Task(
        model={"streams": "video", "audio_dim": 0},
        streams=("video",),
        leaves=("audio", "structure"),
        defaults={"objective": {"structure_weight": 0.0, "flame": {"weight": 0.0}}},
    ),
    "distill": Task(
        defaults={"objective": {"flame": {"weight": 0.0}, "drop_audio": 0.0, "drop_text": 0.0}},
    ),
}
"""`model` trains all that the model has. `video` pretrains the video tower alone on any video: causal, a noise level
per frame, neither structure nor audio. `distill` makes a student of few steps (`df_train.distill`)."""
