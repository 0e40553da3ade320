"""Write docs/metrics.md: every metric of df-eval, from the lists that it measures by.

uv run python tools/make_metrics.py            # write it
uv run python tools/make_metrics.py --check    # exit with 1 if it is not what would be written
"""

from __future__ import annotations

import json
from math import inf
from pathlib import Path

from pages import write_page

from df_eval.metrics import CATALOG, GROUPS, SETS, MetricSpec, SetSpec
from df_eval.metrics.sets import PROTOCOL_CLIPS
from df_models.intervals.ranges import Range

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

DIRECTION = {"higher": "higher is better", "lower": "lower is better", "truth": "as near the truth's as possible"}

INTRODUCTION = """\
# Metrics

Every metric of df-eval. This page is made from the lists that df-eval measures by (`df_eval.metrics.CATALOG` and
`SETS`), by `uv run python tools/make_metrics.py`; a test holds it up to date. Change the lists, not the page.

A value is pooled over clips as a sum of numerators over a sum of denominators; for a plain mean over clips the
denominator is 1. Distances of distributions have no value per clip. Intervals are bootstraps over people, value ± t ×
standard error. They are cut at the ends of the metric's range, those of a difference at the ends of what two such
values can differ by (`df_models.intervals.estimate.interval`); value and standard error stay as they are. Frames in
which no face is found are left out of every metric of readings, never filled (SyncNet looks where the face was before
and after); the detection rate is always reported. "Needs" names the signals without which a metric does not exist: of
the reader (`mouth`, `identity`, ...), of the truth (`true_mouth`, ...), or of a network whose file is given
(`readers.*` in [configuration.md](configuration.md)); a metric without them is reported as unavailable, with the
setting that would give it.

Numbers of different papers do not compare: network, crop, protocol and number of clips differ. Compare within a table:
it holds the ground truth, the VAE's reconstruction, the shifted sound and the still image beside the generated videos.
A Frechet distance of few clips is too large, and is printed with that remark.
"""


VARIANTS = """\
## Variants under one name

**Sync-C and Sync-D (LSE-C, LSE-D).** Two paths are in use, and their numbers differ; a paper rarely says which it took.
Both take the median and the minimum of the mean distance over shifts of +-15 frames.

- *Tracked*: the network sees the face found by S3FD, its box followed and smoothed (median of 13 frames), cropped with
  a margin of 0.4. So do `run_pipeline.py` and `run_syncnet.py` of
  [syncnet_python](https://github.com/joonson/syncnet_python), and `calculate_scores_real_videos.sh` of
  [Wav2Lip](https://github.com/Rudrabha/Wav2Lip/tree/master/evaluation).
- *Whole image*: it sees every image as it is, which must be a crop already. So do `demo_syncnet.py` of syncnet_python,
  and `calculate_scores_LRS.py` of Wav2Lip, which squeezes each image to 224x224.

df-eval's is the tracked one, with the box of the landmarks in place of S3FD's. Tracks of 100 frames or less are dropped
by the published path; df-eval measures clips of 35 frames or more, so short ones compare with no published number. A
codec moves the numbers, too: `sync_codecs=true` tells by how much, and `codec=h264` measures runs through the one that
df-infer writes.

**FVD.** The 400 logits of I3D come from different files, resizings and windows:

- *Unterthiner et al. 2018*: I3D of TF-Hub, whose weights are others than those of the I3D repository; covariance with
  ddof 1.
- *StyleGAN-V*, `fvd2048_16f`
  ([source](https://github.com/universome/stylegan-v/blob/master/src/metrics/frechet_video_distance.py)): a TorchScript
  port of it (`rescale=True, resize=True, return_features=True`), by its authors' word the same but for the resizing,
  which the archive does; 2048 real and 2048 generated windows of 16 consecutive frames, of a generated video the first
  ones; ddof 0.
- *cd-fvd* (Ge et al. 2024): another port, images resized to 224x224 (bilinear, align_corners False) in [-1, 1], logits
  averaged over time; ddof 0.

df-eval calls the last two as their protocols do, but takes the first and the last 16 frames of every clip, real and
generated alike, and prints them apart. So its numbers compare within one table, and with published ones only where
clips, number and windows are the same.

**THEval.** The paper's final score is over eight metrics, and its code
([Newbyl/THEval](https://github.com/Newbyl/THEval), commit 3603338) is what df-eval's five follow: lip, head motion and
eyebrow dynamics, silent lip stability, lip-sync. Lip dynamics had another form in an earlier commit (variances of
distances over the eyes'); the published value of the true videos, 1.72, is of the released one.

- *Missing* are its three image quality networks, TOPIQ-IAA (global aesthetic), MUSIQ (mouth) and TOPIQ-face. They
  come as programs of [pyiqa](https://github.com/chaofengc/IQA-PyTorch): TOPIQ-face finds and turns the face itself,
  MUSIQ cuts patches from several sizes of the mouth's crop, and both are no one network of one file. TOPIQ-IAA, which
  resizes whole images, could be traced into one, but no such file has been held against it. `face_quality` is
  eDifFIQA's, of recognition, and takes no place of theirs.
- *Otherwise read*: landmarks of single images (the code's FaceMesh follows the face from frame to frame, and in
  lip-sync sees red and blue swapped); MediaPipe's pose and box in place of FaceXFormer's and RetinaFace's; the clip's
  crop in place of the whole video.
- *Otherwise counted*: a video without a face is undefined, where lip and eyebrow dynamics count it as 0; means of the
  score are over the clips that have a value in both rows, so that it compares the same clips.

So its numbers compare within one table alone, and `theval_part` with no published score. Two values of it compare where
they are of the same metrics, which stand beside it. It is high where a video is as lively as the truth, not where it is
right: of a still image the dynamics are 0.
"""


COMPARISON = """\
## Against the implementations that the field uses

The same inputs given to both sides, by `benchmarks/reference_metrics.py` (its docstring has the whole command;
{date}, [result]({link})).
Networks have random weights in the layout of the published ones, since those cannot be shipped: what is compared is all
that implementations differ in (ranges, resizing, order of axes, windows, statistics, distances), and not the archives
that users bring. Of I3D in StyleGAN-V's port and of SyncNet there is no package: their distance and evaluation path are
compared alone. pytorch-fid resizes images otherwise than the Inception archive, so figures of the two do not compare;
the line with the other resizing shows by how much.
"""


def comparison(result: Path) -> str:
    """The section on other implementations, from the latest result of its benchmark."""
    record = json.loads(result.read_text(encoding="utf-8"))
    lines = [
        "| metric | beside | of | df-eval | the other | relative difference |",
        "|---|---|---|---|---|---|",
    ]
    for found in record["compared"]:
        gap = abs(found["ours"] - found["theirs"]) / max(abs(found["theirs"]), 1e-12)
        cells = (found["metric"], found["reference"], found["inputs"], f"{found['ours']:.7g}",
                 f"{found['theirs']:.7g}", f"{gap:.0e}")  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    link = f"../benchmarks/results/{result.with_suffix('.md').name}"
    return COMPARISON.format(link=link, date=record["date"]) + "\n" + "\n".join(lines) + "\n"


def document() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for group, title in GROUPS.items():
        every: list[MetricSpec | SetSpec] = [*CATALOG, *SETS]
        parts += [f"## {title}\n", *(entry(spec) for spec in every if spec.group == group)]
    return "\n".join([*parts, VARIANTS, comparison(max(RESULTS.glob("*-reference-metrics-*.json")))])


def entry(spec: MetricSpec | SetSpec) -> str:
    """One metric's section."""
    direction = DIRECTION[spec.better]
    lines = [f"### `{spec.name}`: {spec.title}\n", f"{spec.definition}\n"]
    lines.append(f"- unit: {spec.unit or 'none'}; {direction}; range: {range_text(spec.within)}")
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


def range_text(within: Range) -> str:
    """``0 to 1``, ``0 and above``."""
    least, most = within
    if least == -inf and most == inf:
        return "any number"
    if least == -inf:
        return f"{most:g} and below"
    return f"{least:g} and above" if most == inf else f"{least:g} to {most:g}"


if __name__ == "__main__":
    raise SystemExit(write_page(DOCUMENT, document(), "Write docs/metrics.md from df-eval's lists of metrics."))
