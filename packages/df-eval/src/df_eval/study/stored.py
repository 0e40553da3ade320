"""The parts of `study.json` of which pages, tables and a paper's files are made: what each must be to be used.

Parts that nothing is made of are not looked at. Units and meanings: where they are written (`df_eval.study.document`,
`df_eval.study.verdicts`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=0)]
Frames = Annotated[int, Field(ge=1)]
PLACE = r"^[^\x00]*$"
"""No path holds a NUL."""
MOST_DECIMALS = 17
"""A double has no more."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StoredEstimate(_Part):
    """A `df_models.intervals.estimate.Estimate`; nothing else may stand beside its fields."""

    model_config = ConfigDict(extra="forbid")

    value: float | None
    low: float | None = None
    high: float | None = None
    error: float | None = None
    freedom: float | None = None
    seeds: Count = 0
    clips: Count = 0
    undefined: Count = 0
    people: Count = 0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, value, high = self.low, self.value, self.high
        if value is not None and ((low is not None and low > value) or (high is not None and high < value)):
            raise ValueError("the value lies outside of its interval")
        return self


class StoredArm(_Part):
    """An arm: its labels by axis."""

    at: dict[str, str]
    measured: bool


class StoredHypothesis(_Part):
    """What is shown of a hypothesis."""

    name: str
    claim: str
    metric: str
    frames: Frames
    row: str
    margin: float
    criterion: str


class StoredVerdict(_Part):
    """A verdict."""

    hypothesis: StoredHypothesis
    rule: str
    found: StoredEstimate
    outcome: Literal["supported", "refuted", "undecided"]
    p: float | None
    p_holm: float | None
    reason: str
    left_out: str
    line: str

    @model_validator(mode="after")
    def _adjusted(self) -> Self:
        if (self.p is None) != (self.p_holm is None):
            raise ValueError("p and p_holm are there together or not at all")
        return self


class StoredRow(_Part):
    """An arm's line of a table."""

    arm: str
    value: StoredEstimate
    difference: StoredEstimate | None
    left_out: str


class StoredTable(_Part):
    """A metric's table."""

    title: str
    unit: str
    better: str
    definition: str
    metric: str
    row: str
    frames: Frames
    decimals: int = Field(ge=0, le=MOST_DECIMALS)
    reference: str
    rows: list[StoredRow]


class StoredRun(_Part):
    """A step: a run of an arm, or a corpus, which has no seed."""

    key: str
    arm: str
    seed: int | None
    place: str = Field(pattern=PLACE)
    state: str
    why: str
    before: str
    seconds: dict[str, float]
    commands: dict[str, str]


class StoredAmendment(_Part):
    """What was added after the first run; ``metrics``: to the tables, when runs were done."""

    date: str
    text: str
    added: list[str]
    metrics: list[str] = []


class StoredStudy(_Part):
    """The whole document."""

    name: str
    question: str
    amendments: list[StoredAmendment]
    arms: dict[str, StoredArm]
    verdicts: list[StoredVerdict]
    tables: list[StoredTable]
    runs: list[StoredRun]
    left_aside: list[str]
    protocol: dict[str, str]
    cost_line: str

    @model_validator(mode="after")
    def _known_arms(self) -> Self:
        named = [row.arm for table in self.tables for row in table.rows]
        if unknown := sorted({*named} - {*self.arms}):
            raise ValueError(f"a table has the arm {unknown[0]!r}, which is not among the arms")
        return self
