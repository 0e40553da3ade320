"""What a model follows of structure that it is given: the head's pose, blinks, a whole motion; and the lips the while.

Held-out clips are generated from their own portrait and speech, once as they are and once for each thing that can be
given: all of the structure of another clip, its pose alone, natural blinks. df-eval's reader then reads pose, lids and
mouth from the pixels. A model that did not learn to be given something (`objective.give_structure`, `give_fields` of
its training) has a line that says so; one that never was given all of its structure takes it all the same.

    uv run python benchmarks/control.py runs/quickstart --clips 8 --guidance 1:1 1:2 1:3

With `--guidance`, another clip's structure is given under other scales of guidance on audio and structure, too: what
the mouth then follows says how much of it each of the two decides.

Shape legend: B clips, P pixel frames, A angles (yaw, pitch, roll), V structure entries.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import RESULTS, table, write_result
from levels import Bench

from df_eval.config import EvalConfig
from df_eval.metrics.identity import identity_distance
from df_eval.metrics.pose import blink_rate
from df_eval.reading.readings import FaceReadings
from df_eval.rows.generation import decode, model_inputs, true_structure
from df_infer.config import RolloutConfig
from df_infer.rollout import generate_latents
from df_infer.sampling.blinks import Blinks, why_no_blinks
from df_infer.sampling.drive import Drive, learnt_fields
from df_infer.sampling.noise import FrameNoise
from df_models.blinks import BLINKS_PER_MINUTE
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.files import check_output_directory
from df_models.time import from_slots

POSE = ("yaw", "pitch", "roll")
HEADER = ("given", "pose: correlation", "pose: error, degrees", "blinks a minute", "lids: correlation",
          "mouth and own speech", "identity distance to the portrait", "mouth and given motion")  # fmt: skip


class Signals(NamedTuple):
    """Of one clip: angles ``[P, A]`` in degrees, closure of the lids ``[P]``, opening of the mouth ``[P]``, distance of
    the identity to that of the first frame ``[P]``, which is the portrait."""

    angles_PA: np.ndarray
    blink_P: np.ndarray
    mouth_P: np.ndarray
    identity_P: np.ndarray


def signals(found: FaceReadings | None, frames: int) -> Signals:
    """Of what a reader found, or of a clip's truth."""
    parts = None if found is None else (found.angles_TA, found.blink_T, found.mouth_open_T)
    if found is None or parts is None or any(part is None for part in parts):
        raise UserError("the reader of this run's clips reads no pose, eyelids or mouth; give a run on such a dataset")
    identity_TD = found.identity_TD
    apart_T = np.full(frames, np.nan) if identity_TD is None else identity_distance(identity_TD, identity_TD[0])
    return Signals(*(np.asarray(part)[:frames] for part in (*parts, apart_T)))


def correlation(one_P: np.ndarray, other_P: np.ndarray) -> float:
    """Of the frames that both have; NaN where one of them stands still."""
    both = np.isfinite(one_P) & np.isfinite(other_P)
    one_P, other_P = one_P[both] - one_P[both].mean(), other_P[both] - other_P[both].mean()
    power = float(np.sqrt((one_P @ one_P) * (other_P @ other_P)))
    return float(one_P @ other_P) / power if power > 0 else float("nan")


def mean(values: list[float]) -> float:
    """Without what is not known; NaN of nothing."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def line(made: list[Signals], given: list[Signals], own: list[Signals], lids_BP: np.ndarray) -> dict[str, float]:
    """What the generated clips follow: of the motion ``given``, of their ``own`` speech, of blinks."""
    angles = range(len(POSE))
    rates = [blink_rate(clip.blink_P) for clip in made]
    return {
        "pose_correlation": mean(
            [correlation(m.angles_PA[:, a], g.angles_PA[:, a]) for m, g in zip(made, given) for a in angles]
        ),
        "pose_error": mean([float(np.nanmean(np.abs(m.angles_PA - g.angles_PA))) for m, g in zip(made, given)]),
        "blinks_per_minute": sum(rate.numerator for rate in rates) / sum(rate.denominator for rate in rates),
        "lids_correlation": mean([correlation(m.blink_P, lids_P) for m, lids_P in zip(made, lids_BP)]),
        "lips_own": mean([correlation(m.mouth_P, o.mouth_P) for m, o in zip(made, own)]),
        "identity": mean([float(np.nanmean(m.identity_P)) for m in made]),
        "lips_given": mean([correlation(m.mouth_P, g.mouth_P) for m, g in zip(made, given)]),
    }


def generated(bench: Bench, drive: Drive | None, blinks: float | None, **changes: float) -> list[Signals]:
    """Generate the clips with something given and settings of the rollout changed, and read them."""
    pipeline, config = bench.pipeline, bench.config
    rollout = RolloutConfig.model_validate(pipeline.rollout.model_dump() | {"blinks": blinks} | changes)
    latents = generate_latents(
        pipeline.model,
        *model_inputs(pipeline, bench.clips, bench.frames),
        config=rollout,
        drive=drive,
        seed=config.seed,
    )
    return [signals(bench.reader.read(video), bench.frames) for video in decode(pipeline, latents.video)]


def scales(text: str) -> tuple[float, float]:
    """Of guidance on audio and on structure, from ``2:1``."""
    audio, structure = (float(part) for part in text.split(":"))
    return audio, structure


def measured(bench: Bench, guidance: list[tuple[float, float]]) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """The line of each thing that is given, and of what cannot be given why."""
    model, frames = bench.pipeline.model, bench.frames
    own = [signals(bench.reader.truth(clip), frames) for clip in bench.clips]
    given = own[1:] + own[:1]
    structure = [true_structure(bench.pipeline, clip, frames) for clip in bench.clips]
    track = torch.stack(structure[1:] + structure[:1])
    read = [signals(bench.reader.read(clip.frames_THWC[:frames]), frames) for clip in bench.clips]
    lids_BP, lacking = np.stack([clip.blink_P for clip in given]), {}
    lines = {
        "nothing; read from the true video": line(read, own, own, np.stack([clip.blink_P for clip in own])),
    }
    if model.config.structure_given == "always":
        lacking["nothing"] = "the model was always given its structure, and makes none"
    else:
        lines["nothing"] = line(generated(bench, None, 0.0), given, own, lids_BP)
    lines["all of another clip's structure"] = line(generated(bench, Drive(track), 0.0), given, own, lids_BP)
    for audio, structure_scale in guidance:
        made = generated(bench, Drive(track), 0.0, audio_guidance=audio, structure_guidance=structure_scale)
        name = f"all of it, guidance {audio:g} on audio, {structure_scale:g} on structure"
        lines[name] = line(made, given, own, lids_BP)
    if learnt_fields(model.config, POSE):
        lines["its pose"] = line(generated(bench, Drive(track, POSE), 0.0), given, own, lids_BP)
    else:
        lacking["its pose"] = "the model did not learn to be given it (objective.give_fields: [[pitch, yaw, roll]])"
    reason = why_no_blinks(model.config)
    if reason is None:
        blinks = Blinks(model, BLINKS_PER_MINUTE, FrameNoise(bench.config.seed, range(len(own))))
        closed_BP = from_slots(blinks.closure(0, track.shape[1])[..., None])[..., 0].numpy()
        lines["natural blinks"] = line(generated(bench, None, BLINKS_PER_MINUTE), given, own, closed_BP)
    else:
        lacking["natural blinks"] = reason
    return lines, lacking


def document(bench: Bench, lines: dict[str, dict[str, float]], lacking: dict[str, str]) -> str:
    """The table, and what it says."""
    own = bench.pipeline.rollout
    rows = [(name, *(f"{value:.2f}" for value in found.values())) for name, found in lines.items()]
    rows += [(f"{name}: not measured, {why}", *["-"] * (len(HEADER) - 1)) for name, why in lacking.items()]
    return (
        f"{bench.source}; the first {bench.frames} frames of each, generated with the run's own settings (where no "
        f"other is named: guidance {own.audio_guidance:g} on audio, {own.structure_guidance:g} on structure); reader "
        f"`{bench.reader.id}`. Pose and mouth of the given motion are the next clip's truth, also in the line where "
        "nothing is given: that is what chance gives. Lids are compared with the given blinks, else with the next "
        "clip's. In the first line all is compared with the clip's own truth: what the reader can tell.\n\n"
        + table(HEADER, rows)
    )


def main(argv: list[str]) -> int:
    """Measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of a trained model")
    parser.add_argument("--clips", type=int, default=8, help="held-out clips (default: 8), at least 2")
    parser.add_argument("--frames", type=int, default=129, help="pixel frames of each, 1 + 4 n (default: 129)")
    parser.add_argument(
        "--guidance",
        type=scales,
        nargs="+",
        default=[],
        metavar="A:S",
        help="scales of guidance on audio and structure",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    args = parser.parse_args(argv)
    if args.clips < 2:
        raise UserError("--clips: a clip is given the motion of another, so at least 2 are needed")
    check_output_directory(args.out)
    torch.set_num_threads(args.threads)
    bench = Bench(args.run, EvalConfig(clips=args.clips, frames=(args.frames,)))
    lines, lacking = measured(bench, args.guidance)
    args.preset = args.run.absolute().name  # as given: a link is not named by what it leads to
    figures: dict[str, Any] = {"lines": lines, "lacking": lacking}
    text = document(bench, lines, lacking)
    print(f"wrote {write_result(args.out, 'control', args, bench.pipeline.model.device, figures, text)}\n\n{text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "control.py"))
