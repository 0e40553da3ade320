"""Which clips a run is measured on, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from df_data.format.manifest import SYNTHETIC, read_manifest
from df_data.synth.corpus import corpus_config
from df_eval.clips import EvalClip, render_clips, stored_clips
from df_eval.config import EvalConfig
from df_infer.run_dir import RunDir
from df_models.errors import UserError
from df_models.time import covering_pixel_length


def person_of(run: RunDir, root: Path | None) -> int | None:
    """The number of the person of a synthetic corpus of one person; None for other datasets."""
    if root is not None:
        made = corpus_config(root)
        return None if made is None else made.person
    synth = run.section("data").get("synth")
    return synth.get("person") if isinstance(synth, dict) else None


def held_out_clips(
    root: Path | None, config: EvalConfig, encoder: str, size: int, person: int | None = None
) -> tuple[list[EvalClip], str]:
    """The clips and where they come from.

    The val clips of the dataset are taken if there are enough of them, long enough for the longest length and, at the
    shortest, for the shifted-audio control. Otherwise synthetic ones are rendered (people and sentences of the val
    split, which training never draws); for real data what is there is used.

    Args:
        person: whom alone the rendered clips show (:func:`person_of`).

    Raises:
        UserError: real data without any usable val clip.
    """
    needed = max(config.frames[-1], config.frames[0] + config.shifts[0])
    stored = [] if root is None else stored_clips(root, config.clips, needed)
    if root is not None and len(stored) >= config.clips:
        return stored, _from(root, stored)
    if root is None or encoder == SYNTHETIC:
        frames = covering_pixel_length(max(config.frames[-1], config.frames[0] + config.shifts[-1]))
        clips = render_clips(config.clips, frames, size, config.seed, person)
        what = (
            "the val split's people and sentences"
            if person is None
            else f"the val split's sentences by person {person}"
        )
        return clips, f"{len(clips)} clips rendered from {what} (seed {config.seed})"
    usable = stored_clips(root, config.clips, min(config.frames))
    if not usable:
        raise UserError(
            f"the val split at {root / 'val'} holds no clip of {min(config.frames)} frames with video to compare with; "
            "build it with more or longer clips, or measure shorter lengths (--frames)"
        )
    return usable, _from(root, usable)


def _from(root: Path, clips: Sequence[EvalClip]) -> str:
    digest = read_manifest(root / "val").digest
    return f"{len(clips)} val clips of {root.resolve().name} (digest {digest[:12]})"
