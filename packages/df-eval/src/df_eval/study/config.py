"""Everything that a study can be told, with its defaults. What it asks is fixed by its first run (`freeze`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from df_models.settings import FrozenModel, Location

ARM_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
ArmName = Annotated[str, Field(pattern=ARM_NAME)]


class EvaluationConfig(FrozenModel):
    """How every run is measured: df-eval's own settings.

    Attributes:
        config: a configuration file of df-eval; null: its defaults.
        set: settings of df-eval to change, by dotted names, such as `clips: 8` or `rollout.steps: 4`.
    """

    config: Location | None = None
    set: dict[str, Any] = Field(default_factory=dict)


class HypothesisConfig(FrozenModel):
    """One claim, and what decides it, written before the runs.

    Attributes:
        name: short, for tables.
        claim: what is claimed, in words.
        metric: of df-eval (`df_eval.metrics.CATALOG`).
        frames: length of the clips, in pixel frames; one that the evaluation measures.
        row: of df-eval's table.
        arms: two arms, whose paired difference first minus second is looked at; or one, whose value is.
        difference: `more`: above `margin`; `less`: below minus `margin` (of one arm: below `margin`); `same`: within
            plus and minus `margin`.
        margin: in the metric's unit. Below 0 with two arms it is what may be lost: `more` with -0.03 claims "not worse
            by 0.03 or more".
        criterion: why this margin decides, in words.
    """

    name: str = Field(min_length=1)
    claim: str = Field(min_length=1)
    metric: str
    frames: int = Field(default=33, ge=1)
    row: str = "generated"
    arms: tuple[str, ...] = Field(min_length=1, max_length=2)
    difference: Literal["more", "less", "same"] = "more"
    margin: float = Field(default=0.0, allow_inf_nan=False)
    criterion: str = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> HypothesisConfig:
        if self.difference == "same" and self.margin <= 0:
            raise ValueError("difference=same needs a margin above 0: two arms are never exactly the same")
        if len(self.arms) == 1 and self.difference == "same":
            raise ValueError("difference=same compares two arms; name two")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError("an arm is compared with itself; name two different arms")
        return self


class SlotsConfig(FrozenModel):
    """How many runs go at the same time on this machine.

    Attributes:
        count: runs at a time.
        threads: CPU threads of each.
        gpus: what each slot sees as `CUDA_VISIBLE_DEVICES`, such as `["0", "1"]`; empty: whatever is visible.
    """

    count: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    gpus: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_each(self) -> SlotsConfig:
        if self.gpus and len(self.gpus) != self.count:
            raise ValueError(f"gpus names {len(self.gpus)} devices for {self.count} slots; name one for each")
        return self


class SlurmConfig(FrozenModel):
    """What the sbatch script asks for (`executor: slurm`).

    Attributes:
        options: of sbatch, without the dashes, such as `{partition: gpu, gres: "gpu:1", time: "04:00:00"}`.
        setup: shell lines before the command, such as `source .venv/bin/activate`.
    """

    options: dict[str, str] = Field(default_factory=dict)
    setup: str = ""


class StudyConfig(FrozenModel):
    """One study. Paths start at the cwd, as in every configuration; only `extends:` starts at the file itself.

    Attributes:
        name: of the study: letters, digits, `.`, `_`, `-`.
        question: what it asks, in words.
        out: its directory; null means `studies/<name>`.
        base: the configuration file of df-train that all arms start from.
        set: settings of df-train that all arms share, by dotted names, such as `optim.steps: 300`.
        arms: by name, the settings of df-train that make the arm, by dotted names. `evaluation.KEY` is a setting of
            df-eval for this arm alone; arms that differ in nothing else share one training. `base` is another
            configuration file for this arm, which then takes nothing from `set`. `${arm:NAME}` in a value is the run
            directory of another arm with the same seed, which is then run first.
        axes: instead of `arms`, a grid: by dotted name a list of values, or by a free name a mapping of labels to
            settings. Every combination is an arm.
        only_trained: arms that are not measured, because others are only built on them.
        seeds: of df-train; every arm runs with each.
        evaluation: how runs are measured.
        metrics: what the report's tables show, besides what the hypotheses are about.
        reference: the arm that the tables' differences are taken to; null: the first.
        hypotheses: what is claimed, and what decides it.
        resamples: of the bootstrap over seeds and people.
        executor: `local`, on this machine; `ray`, on the cluster that `RAY_ADDRESS` names, else on this machine
            (needs `df-eval[ray]`); `slurm` writes scripts to submit by hand, and the next call collects.
        slots: how many runs at a time, with `executor: local`; `ray` and `slurm` take `threads`.
        slurm: what the sbatch scripts ask for.
    """

    name: str = Field(pattern=ARM_NAME)
    question: str = Field(min_length=1)
    out: Location | None = None
    base: Location
    set: dict[str, Any] = Field(default_factory=dict)
    arms: dict[ArmName, dict[str, Any]] = Field(default_factory=dict)
    axes: dict[str, dict[str, dict[str, Any]] | tuple[Any, ...]] = Field(default_factory=dict)
    only_trained: tuple[str, ...] = ()
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    evaluation: EvaluationConfig = EvaluationConfig()
    metrics: tuple[str, ...] = (
        "lip_sync",
        "identity_distance",
        "identity_person_ratio",
        "motion_ratio",
        "sharpness_ratio",
    )
    reference: str | None = None
    hypotheses: tuple[HypothesisConfig, ...] = ()
    resamples: int = Field(default=2000, ge=100)
    executor: Literal["local", "ray", "slurm"] = "local"
    slots: SlotsConfig = SlotsConfig()
    slurm: SlurmConfig = SlurmConfig()

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is named twice")
        return seeds

    @model_validator(mode="after")
    def _fits(self) -> StudyConfig:
        if bool(self.arms) == bool(self.axes):
            raise ValueError("give either arms or axes: they say which runs are compared")
        names = [hypothesis.name for hypothesis in self.hypotheses]
        if len(set(names)) < len(names):
            raise ValueError("two hypotheses have the same name")
        if any(not values for values in self.axes.values()):
            raise ValueError("an axis has no value")
        return self

    @property
    def directory(self) -> Path:
        """Where the study lies."""
        return Path("studies") / self.name if self.out is None else self.out.path
