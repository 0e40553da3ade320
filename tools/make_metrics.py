"""Write docs/metrics.md: every metric of df-eval, from the lists that it measures by.

uv run python tools/make_metrics.py            # write it
uv run python tools/make_metrics.py --check    # exit with 1 if it is not what would be written
"""

from __future__ import annotations

from pathlib import Path

from pages import write_page

from df_eval.metrics import CATALOG, GROUPS, SETS, MetricSpec, SetSpec
from df_eval.metrics.sets import PROTOCOL_CLIPS

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"

DIRECTION = {"higher": "higher is better", "lower": "lower is better", "truth": "as near the truth's as possible"}

INTRODUCTION = """\
# Metrics

Every metric of df-eval. This page is made from the lists that df-eval measures by (`df_eval.metrics.CATALOG` and
`SETS`), by `uv run python tools/make_metrics.py`; a test holds it up to date. Change the lists, not the page.

A value is pooled over clips as a sum of numerators over a sum of denominators; for a plain mean over clips the
denominator is 1. Distances of distributions have no value per clip. Intervals are bootstraps over people. Frames in
which no face is found are left out of every metric of readings, never filled (SyncNet looks where the face was before
and after); the detection rate is always reported. "Needs" names
the signals without which a metric does not exist: of the reader (`mouth`, `identity`, ...), of the truth (`true_mouth`,
...), or of a network whose file is given (`readers.*` in [configuration.md](configuration.md)); a metric without them
is reported as unavailable, with the setting that would give it.

Numbers of different papers do not compare: network, crop, protocol and number of clips differ. Compare within a table:
it holds the ground truth, the VAE's reconstruction, the shifted sound and the still image beside the generated videos.
A Frechet distance of few clips is too large, and is printed with that remark.
"""


def document() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for group, title in GROUPS.items():
        every: list[MetricSpec | SetSpec] = [*CATALOG, *SETS]
        parts += [f"## {title}\n", *(entry(spec) for spec in every if spec.group == group)]
    return "\n".join(parts)


def entry(spec: MetricSpec | SetSpec) -> str:
    """One metric's section."""
    direction = DIRECTION[spec.better]
    lines = [f"### `{spec.name}`: {spec.title}\n", f"{spec.definition}\n"]
    lines.append(f"- unit: {spec.unit or 'none'}; {direction}")
    if spec.protocol:
        lines.append(f"- protocol: {spec.protocol}")
    if isinstance(spec, SetSpec) and spec.biased:
        lines.append(f"- number: {PROTOCOL_CLIPS} clips; fewer are flagged as biased")
    if isinstance(spec, MetricSpec) and spec.not_in:
        reasons = dict.fromkeys(spec.not_in.values())
        told = (f"{', '.join(row for row in spec.not_in if spec.not_in[row] == why)} ({why})" for why in reasons)
        lines.append(f"- not in the rows: {'; '.join(told)}")
    lines.append(f"- needs: {', '.join(f'`{need}`' for need in spec.needs) or 'pixels alone'}")
    lines.append(f"- source: {spec.source}\n")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(write_page(DOCUMENT, document(), "Write docs/metrics.md from df-eval's lists of metrics."))
