"""What is measured side by side: runs, which generate, and folders of videos (`df_eval.rows.baseline`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig
from df_eval.measure import GROUND_TRUTH, RECONSTRUCTION, SHIFTED, STATIC, row_of
from df_eval.rows.generation import Generated, Progress, generate_clips
from df_eval.rows.partners import with_others_structure
from df_infer.config import OTHERS
from df_infer.pipeline import Pipeline
from df_infer.rollout import RolloutConfig
from df_models.structure import StructureLayout


class LeftOut(NamedTuple):
    """A clip of which a system has no video that can be measured, and why."""

    reason: str


class System(Protocol):
    """Something that has a video of every clip, or says why not.

    Attributes:
        row: its row of the table.
        layout: what its structure vectors mean; None: they say nothing of the mouth, or there are none.
    """

    @property
    def row(self) -> str: ...

    @property
    def layout(self) -> StructureLayout | None: ...

    def make(self, clips: Sequence[EvalClip], frames: int, progress: Progress) -> Iterator[Generated | LeftOut]:
        """The first ``frames`` pixel frames of its video of every clip, one after the other, few of them in memory;
        ``progress`` is told how many are done."""
        ...


@dataclass(frozen=True)
class RunSystem:
    """A trained run, which generates each clip from its first frame and its audio."""

    row: str
    pipeline: Pipeline
    rollout: RolloutConfig
    config: EvalConfig

    @property
    def layout(self) -> StructureLayout | None:
        return self.pipeline.model.config.structure_layout

    def make(self, clips: Sequence[EvalClip], frames: int, progress: Progress) -> Iterator[Generated | LeftOut]:
        given = with_others_structure(clips) if self.rollout.structure_from == OTHERS else clips
        return generate_clips(
            self.pipeline,
            given,
            frames,
            rollout=self.rollout,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            progress=progress,
        )


def own_vaes(systems: Sequence[System]) -> dict[str, Pipeline]:
    """By row of the table, a pipeline of each VAE that the runs have: a model reaches no more than its own VAE."""
    found: dict[str, Pipeline] = {}
    for system in systems:
        if not isinstance(system, RunSystem):
            continue
        known = [pipeline.video_vae.sha256 for pipeline in found.values()]
        if system.pipeline.video_vae.sha256 not in known:
            found[row_of(RECONSTRUCTION, system.row) if found else RECONSTRUCTION] = system.pipeline
    return found


def shifted_row(system: System, systems: Sequence[System]) -> str:
    """The row of a system's videos against sound taken later."""
    return SHIFTED if len(systems) == 1 else row_of(SHIFTED, system.row)


def rows_of(systems: Sequence[System]) -> tuple[str, ...]:
    """The rows of the table: those of `df_eval.measure.ROWS`, with one for each system where there are several."""
    shifted = (shifted_row(system, systems) for system in systems)
    return (GROUND_TRUTH, *own_vaes(systems), *(system.row for system in systems), *shifted, STATIC)
