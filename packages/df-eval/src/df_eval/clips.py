"""The held-out clips: from the dataset's val shards, or rendered anew where those are too few or too short.

Shape suffixes: T pixel frames, N samples at 16 kHz.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from df_data.manifest import Manifest, read_manifest
from df_data.sample import Sample
from df_data.shards import iter_samples
from df_models.errors import UserError
from df_models.media import read_audio, read_video
from df_models.time import samples_for


@dataclass(frozen=True)
class EvalClip:
    """One true clip.

    Attributes:
        frames_THWC: uint8; the first frame is the reference picture.
        wave_N: float32 sound at 16 kHz.
        truth: named signals [T], exact for synthetic clips, the structure encoder's readings for others; may be empty.
    """

    key: str
    identity: str
    frames_THWC: np.ndarray
    wave_N: np.ndarray
    truth: dict[str, np.ndarray]

    @property
    def length(self) -> int:
        """Pixel frames that have sound too."""
        return min(len(self.frames_THWC), len(self.wave_N) // samples_for(1))


def open_val(root: Path) -> Manifest | None:
    """The manifest of a dataset's val split, or None if the dataset is not there any more."""
    return read_manifest(root / "val") if (root / "val").is_dir() else None


def stored_clips(root: Path, count: int, frames: int) -> list[EvalClip]:
    """Up to ``count`` val clips of at least ``frames`` pixel frames, one per sentence, spread over the people.

    Takes the first clip of every person, then the second of every person, and so on, in the order of the shards.
    """
    by_person: dict[str, list[Sample]] = {}
    for sample in iter_samples(root / "val"):
        if sample.video is not None and sample.meta.num_frames >= frames:
            by_person.setdefault(sample.meta.identity, []).append(sample)
    turns = max((len(samples) for samples in by_person.values()), default=0)
    ordered = [samples[turn] for turn in range(turns) for samples in by_person.values() if turn < len(samples)]
    return [_from_sample(sample) for sample in ordered[:count]]


def _from_sample(sample: Sample) -> EvalClip:
    assert sample.video is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(sample.video)
        frames, _ = read_video(path)
        wave = read_audio(path)
    if len(frames) != sample.meta.num_frames:
        raise UserError(
            f"clip {sample.key} has {len(frames)} frames in its mp4 but {sample.meta.num_frames} in its metadata; "
            "the shard is damaged, build it again"
        )
    names = sample.meta.truth_names or ()
    table = sample.tensors["truth"].numpy().astype(np.float64) if names else np.zeros((len(frames), 0))
    truth = {name: table[:, column] for column, name in enumerate(names)}
    needed = samples_for(len(frames))
    return EvalClip(sample.key, sample.meta.identity, frames, np.pad(wave, (0, max(0, needed - len(wave)))), truth)


def render_clips(count: int, frames: int, size: int, seed: int) -> list[EvalClip]:
    """Render ``count`` synthetic clips of people and sentences of the val split, each another person."""
    from df_data.synth.clip import make_clip

    clips = []
    for index in range(count):
        clip = make_clip(seed + index, index, frames, size)
        truth = {name: np.asarray(values, dtype=np.float64) for name, values in clip.truth.items()}
        clips.append(EvalClip(f"val-{index:04d}", str(index), clip.frames, clip.wave, truth))
    return clips
