"""From paired differences to verdicts. Pure functions over what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from df_eval.study.config import HypothesisConfig, StudyConfig
from df_eval.study.measured import Measured
from df_models.intervals.estimate import Estimate, holm, one_sided, p_value

Outcome = Literal["supported", "refuted", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What came of one hypothesis.

    Attributes:
        rule: what decides it, made from the hypothesis.
        values: each arm's own value.
        found: the value of the one arm, or the paired difference of the two.
        p: of the difference being exactly the margin (the nearer one, of `same`); ``p_holm`` adjusted for the
            number of the study's hypotheses.
        reason: why it is undecided, or a remark.
        left_out: runs and clips that are not in it.
    """

    hypothesis: HypothesisConfig
    rule: str
    values: dict[str, Estimate]
    found: Estimate
    outcome: Outcome
    p: float | None
    p_holm: float | None = None
    reason: str = ""
    left_out: str = ""

    @property
    def line(self) -> str:
        """In one line: ``both > none by 0.031 [0.012, 0.050], 5 seeds, 16 clips: supported``."""
        return f"{_compared(self.hypothesis, self.found)}, {_counts(self.found)}: {self.outcome}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"hypothesis": self.hypothesis.model_dump(mode="json"), "line": self.line}


def verdicts_of(config: StudyConfig, measured: Measured) -> list[Verdict]:
    """The verdict of every hypothesis, with p values adjusted over all of them."""
    alone = [_verdict(hypothesis, config, measured) for hypothesis in config.hypotheses]
    adjusted = holm([verdict.p for verdict in alone])
    return [_with_holm(verdict, p) for verdict, p in zip(alone, adjusted, strict=True)]


def rule_of(hypothesis: HypothesisConfig) -> str:
    """What decides a hypothesis, in words."""
    what = " minus ".join(f"{hypothesis.metric}({arm})" for arm in hypothesis.arms)
    inside, outside = {
        "more": (f"above {hypothesis.margin:g}", f"below {hypothesis.margin:g}"),
        "less": (f"below {_bound(hypothesis):g}", f"above {_bound(hypothesis):g}"),
        "same": (f"within +-{hypothesis.margin:g}", f"outside of +-{hypothesis.margin:g}"),
    }[hypothesis.difference]
    return (
        f"supported if the 95 % interval of {what} (row {hypothesis.row}, {hypothesis.frames} frames) lies {inside}, "
        f"refuted if it lies {outside}, undecided otherwise, with one seed, or where a run failed or one arm alone has "
        "no value"
    )


def decide(hypothesis: HypothesisConfig, found: Estimate) -> Outcome:
    """The verdict of an interval, whatever it rests on."""
    low, high, margin = found.low, found.high, hypothesis.margin
    if low is None or high is None:
        return "undecided"
    if hypothesis.difference == "same":
        if -margin < low and high < margin:
            return "supported"
        return "refuted" if low > margin or high < -margin else "undecided"
    bound = _bound(hypothesis)
    above, below = low > bound, high < bound
    wanted, unwanted = (above, below) if hypothesis.difference == "more" else (below, above)
    return "supported" if wanted else "refuted" if unwanted else "undecided"


def _bound(hypothesis: HypothesisConfig) -> float:
    """Where the interval must lie above or below."""
    falls = hypothesis.difference == "less" and len(hypothesis.arms) == 2
    return -hypothesis.margin if falls else hypothesis.margin


def _p(hypothesis: HypothesisConfig, found: Estimate) -> float | None:
    if hypothesis.difference != "same":
        return p_value(found, _bound(hypothesis))
    both = [p for margin in (hypothesis.margin, -hypothesis.margin) if (p := p_value(found, margin)) is not None]
    return max(both, default=None)


def _verdict(hypothesis: HypothesisConfig, config: StudyConfig, measured: Measured) -> Verdict:
    asked = (config.seeds, hypothesis.frames, hypothesis.row, hypothesis.metric)
    matched = measured.matched(hypothesis.arms, *asked)
    rule = rule_of(hypothesis)
    if not matched.seeds or not matched.clips:
        nothing = Estimate(None, seeds=len(matched.seeds), clips=len(matched.clips))
        reason = "no seed with all its runs done" if not matched.seeds else "the metric exists on no clip of all runs"
        return Verdict(hypothesis, rule, {}, nothing, "undecided", None, reason=reason, left_out=matched.left_out)
    cells = matched.cells
    found = matched.estimate(config.resamples)
    values = {arm: matched.estimate(config.resamples, place) for place, arm in enumerate(hypothesis.arms)}
    outcome, reason = decide(hypothesis, found), ""
    failed = [seed for seed in config.seeds if any(measured.failed(arm, seed) for arm in hypothesis.arms)]
    lacking = one_sided(*cells) if len(cells) == 2 else 0
    if found.seeds < 2:
        outcome, reason = (
            "undecided",
            "one seed: the interval is over people alone, and another training may differ",
        )
    elif outcome == "undecided":
        reason = "the interval holds the margin" if found.low is not None else "there is no interval"
    elif failed:
        outcome, reason = "undecided", f"a run failed ({_count(len(failed), 'seed')}), and which fail is not chance"
    elif lacking:
        outcome, reason = "undecided", f"one arm alone has no value in {lacking} cells, and which is not chance"
    elif found.people == 1:
        outcome, reason = "undecided", "all clips are of one person, who says nothing of another"
    elif outcome == "refuted" and _right_side(hypothesis, found):
        reason = "the difference has the claimed sign, and is too small for the claim"
    p = None if found.seeds < 2 else _p(hypothesis, found)
    return Verdict(hypothesis, rule, values, found, outcome, p, None, reason, matched.left_out)


def _right_side(hypothesis: HypothesisConfig, found: Estimate) -> bool:
    """Whether the interval of a difference of two arms is on the claimed side of 0."""
    if len(hypothesis.arms) == 1 or hypothesis.difference == "same" or found.low is None or found.high is None:
        return False
    return found.low > 0 if hypothesis.difference == "more" else found.high < 0


def _with_holm(verdict: Verdict, p_holm: float | None) -> Verdict:
    reason = verdict.reason
    if verdict.outcome != "undecided" and p_holm is not None and p_holm >= 0.05:
        reason = "not so after Holm's correction for the number of hypotheses"
    fields = {name: getattr(verdict, name) for name in Verdict.__dataclass_fields__}
    return Verdict(**fields | {"p_holm": p_holm, "reason": reason})


def _compared(hypothesis: HypothesisConfig, found: Estimate) -> str:
    if found.value is None:
        return f"{hypothesis.metric} of {' and '.join(hypothesis.arms)}: not measured"
    if len(hypothesis.arms) == 1:
        return f"{hypothesis.metric} of {hypothesis.arms[0]} is {numbers(found, 3)}"
    first, second = hypothesis.arms
    sign = ">" if found.value > 0 else "<" if found.value < 0 else "="
    shown = found
    if found.value < 0:
        low = None if found.high is None else -found.high
        high = None if found.low is None else -found.low
        shown = Estimate(-found.value, low, high)
    return f"{first} {sign} {second} by {numbers(shown, 3)}"


def numbers(found: Estimate, decimals: int) -> str:
    """``0.031 [0.012, 0.050]``; a dash where there is no value."""
    if found.value is None:
        return "–"
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f" [{found.low:.{decimals}f}, {found.high:.{decimals}f}]"
    return f"{found.value:.{decimals}f}{interval}"


def _counts(found: Estimate) -> str:
    return f"{_count(found.seeds, 'seed')}, {_count(found.clips, 'clip')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def counted(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many there are of each outcome."""
    return {outcome: sum(v.outcome == outcome for v in verdicts) for outcome in ("supported", "refuted", "undecided")}
