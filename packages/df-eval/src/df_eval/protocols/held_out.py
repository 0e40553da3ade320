"""Which clips a run is measured on, and where they come from: the run's own held-out ones, or those of a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from df_data.format.manifest import SYNTHETIC, read_manifest
from df_data.synth.recorded import corpus_config
from df_eval.clips import EvalClip, clips_to_render, render_clips, stored_clips
from df_eval.config import EvalConfig, ProtocolConfig
from df_eval.protocols.clip_lists import rendered_digest, stored_digest
from df_eval.protocols.protocol import ClipList, check_list
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
    root: Path | None, config: EvalConfig, encoder: str, size: int, person: int | None = None, *, quiet: bool = False
) -> tuple[list[EvalClip], ClipList]:
    """The clips and where they come from.

    A protocol says which they are. Without one, the val clips of the dataset are taken if there are enough of them,
    long enough for the longest length and, at the shortest, for the shifted-audio control. Otherwise synthetic ones are
    rendered (people and sentences of the val split, which training never draws); for real data what is there is used.

    Args:
        person: whom alone the rendered clips show (:func:`person_of`).
        quiet: no progress bar.

    Raises:
        UserError: real data without any usable val clip; a protocol whose clips are not to be had, or are others.
    """
    if config.protocol is not None:
        return _of_protocol(config.protocol, root, config, size, person, quiet)
    needed = max(config.frames[-1], config.frames[0] + config.shifts[0])
    stored = [] if root is None else stored_clips(root, config.clips, needed)
    if root is not None and len(stored) >= config.clips:
        return stored, ClipList(_from(root, stored))
    if root is None or encoder == SYNTHETIC:
        clips = render_clips(config.clips, _rendered_frames(config), size, config.seed, person, quiet=quiet)
        what = (
            "the val split's people and sentences"
            if person is None
            else f"the val split's sentences by person {person}"
        )
        return clips, ClipList(f"{len(clips)} clips rendered from {what} (seed {config.seed})")
    usable = stored_clips(root, config.clips, min(config.frames))
    if not usable:
        raise UserError(
            f"the val split at {root / 'val'} holds no clip of {min(config.frames)} frames with video to compare with; "
            "build it with more or longer clips, or measure shorter lengths (--frames)"
        )
    return usable, ClipList(_from(root, usable))


def _rendered_frames(config: EvalConfig) -> int:
    """Pixel frames of a rendered clip: the longest length, and at the shortest all shifts of the control."""
    return covering_pixel_length(max(config.frames[-1], config.frames[0] + config.shifts[-1]))


def _of_protocol(
    protocol: ProtocolConfig, root: Path | None, config: EvalConfig, size: int, person: int | None, quiet: bool
) -> tuple[list[EvalClip], ClipList]:
    split = config.split
    assert split is not None
    if protocol.clips_from == "dataset":
        if root is None:
            raise UserError(f"the protocol {protocol.name} measures a dataset's held-out clips, and the run has none")
        return _of_dataset(protocol, root, config)
    if person is not None:
        raise UserError(
            f"the protocol {protocol.name} shows many people, and the run was trained on one alone; measure it without "
            "a protocol"
        )
    seed = getattr(protocol, split).seed
    digest = rendered_digest(clips_to_render(config.clips, _rendered_frames(config), size, seed))
    check_list(protocol, split, digest)
    clips = render_clips(config.clips, _rendered_frames(config), size, seed, quiet=quiet)
    source = f"{len(clips)} clips rendered for the list {split} of the protocol {protocol.name} (seed {seed})"
    return clips, ClipList(source, digest)


def _of_dataset(protocol: ProtocolConfig, root: Path, config: EvalConfig) -> tuple[list[EvalClip], ClipList]:
    split = config.split
    clips = stored_clips(root, config.clips, config.frames[-1], split, protocol.prefix)
    if not clips:
        named = f" whose name begins with {protocol.prefix!r}" if protocol.prefix else ""
        raise UserError(
            f"the protocol {protocol.name} measures clips of {config.frames[-1]} frames{named}, and the list {split} "
            f"of the val split at {root / 'val'} holds none; it is for another dataset, or needs more or longer clips"
        )
    digest = stored_digest(clip.key for clip in clips)
    check_list(protocol, str(split), digest)
    return clips, ClipList(f"{_from(root, clips)}, list {split} by the hash of their recordings", digest)


def _from(root: Path, clips: Sequence[EvalClip]) -> str:
    digest = read_manifest(root / "val").digest
    return f"{len(clips)} val clips of {root.resolve().name} (digest {digest[:12]})"
