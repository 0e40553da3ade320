"""The held-out clips: from the dataset's val shards, or rendered anew where those are too few or too short.

Shape suffixes: T pixel frames, N samples at 16 kHz, L text tokens.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from df_data.format.manifest import read_manifest, structure_of
from df_data.format.sample import Sample
from df_data.format.shards import iter_samples
from df_data.format.stored_video import probe_video, read_frames
from df_data.synth.clip import make_clip
from df_data.synth.corpus import SynthConfig, jobs_of
from df_eval.protocols.clip_lists import ClipSplit, clip_hash, split_of_recording
from df_models.errors import UserError
from df_models.media import read_audio
from df_models.time import samples_for

RENDER_SEED = 1_000
"""Added to the seed of clips that are rendered here, so that they are not a corpus's own validation clips."""


@dataclass(frozen=True)
class StoredVideo:
    """A clip's video as its shard holds it, decoded whenever it is asked for: all clips' frames would fill the memory.

    Attributes:
        mp4: the file.
        shape: of its frames, ``(T, H, W, 3)``.
        first_HWC: its first frame.
    """

    mp4: bytes
    shape: tuple[int, ...]
    first_HWC: np.ndarray

    @classmethod
    def of(cls, mp4: bytes) -> StoredVideo:
        """A file's video; its images are counted, and the first alone is turned into pixels.

        Raises:
            UserError: it cannot be decoded.
        """
        first_HWC = read_frames(mp4, 1)[0]
        return cls(mp4, (len(probe_video(mp4).times), *first_HWC.shape), first_HWC)

    def decoded(self) -> np.ndarray:
        """All frames, uint8 ``[T, H, W, 3]``."""
        return read_frames(self.mp4)


@dataclass(frozen=True)
class EvalClip:
    """One true clip.

    Attributes:
        video: frames uint8 [T, H, W, 3], or where they can be had.
        wave_N: float32 audio at 16 kHz.
        audio_TD: stored audio features [2T, D_a] made by ``audio_encoder``, whose weights have the hash
            ``audio_sha256``; None: the audio is to be encoded.
        latent_TChw: stored latents of the whole clip, made by the VAE of hash ``video_vae``; None: to be encoded.
        structure_TV, flame_TV: the true vectors [T, D] in their own units, None if there are none.
        text_LD: stored text features [L, D_t] made by ``text_encoder``, None if there are none.
        truth: named signals [T], exact for synthetic clips, the structure encoder's readings for others; may be empty.
        portrait_HWC: the reference image, if it is not the first frame.
    """

    key: str
    identity: str
    video: np.ndarray | StoredVideo
    wave_N: np.ndarray
    truth: dict[str, np.ndarray]
    audio_TD: Tensor | None = None
    audio_encoder: str = ""
    audio_sha256: str = ""
    latent_TChw: Tensor | None = None
    video_vae: str = ""
    text_LD: Tensor | None = None
    text_encoder: str = ""
    structure_TV: Tensor | None = None
    flame_TV: Tensor | None = None
    portrait_HWC: np.ndarray | None = None

    @property
    def frames_THWC(self) -> np.ndarray:
        """All frames, uint8; those of a stored video are decoded each time: take them once, and let them go.

        Raises:
            UserError: a stored video cannot be decoded; it names the clip.
        """
        if not isinstance(self.video, StoredVideo):
            return self.video
        try:
            return self.video.decoded()
        except UserError as error:
            raise _damaged(self.key, error) from error

    @property
    def reference_HWC(self) -> np.ndarray:
        """The image that a model is given."""
        if self.portrait_HWC is not None:
            return self.portrait_HWC
        return self.video.first_HWC if isinstance(self.video, StoredVideo) else self.video[0]

    @property
    def count(self) -> int:
        """Pixel frames."""
        return self.video.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.video.shape[1], self.video.shape[2]

    @property
    def length(self) -> int:
        """Pixel frames that have audio too."""
        return min(self.count, len(self.wave_N) // samples_for(1))

    def held(self) -> EvalClip:
        """The same with its frames in memory."""
        return replace(self, video=self.frames_THWC)


def structure_encoder_of(root: Path) -> str:
    """Id of what made the structure of a dataset's val split, by its manifest; for the synthetic corpus `synthetic`."""
    manifest = read_manifest(root / "val")
    if not manifest.has_faces:
        raise UserError(f"{root} holds general video, without faces to measure; give a dataset that has some (--data)")
    layout = structure_of(manifest)
    return manifest.encoders["structure"].id if layout is None else layout.encoder


def stored_clips(
    root: Path, count: int, frames: int, split: ClipSplit | None = None, prefix: str = ""
) -> list[EvalClip]:
    """Up to ``count`` val clips of at least ``frames`` pixel frames, one per sentence, spread over the people.

    Takes the first clip of every person, then the second of every person, and so on, in the order of the shards.

    Args:
        split: only those of a protocol's list (`df_eval.protocols.clip_lists`), in the order of their hashes.
        prefix: of their names.
    """
    samples = [
        sample
        for sample in iter_samples(root / "val")
        if sample.video is not None
        and sample.meta.num_frames >= frames
        and sample.key.startswith(prefix)
        and split in (None, split_of_recording(sample.meta.source, sample.key))
    ]
    if split is not None:
        samples.sort(key=lambda sample: clip_hash(sample.key))
    by_person: dict[str, list[Sample]] = {}
    for sample in samples:
        by_person.setdefault(sample.meta.identity, []).append(sample)
    turns = max((len(samples) for samples in by_person.values()), default=0)
    ordered = [samples[turn] for turn in range(turns) for samples in by_person.values() if turn < len(samples)]
    return [_from_sample(sample) for sample in ordered[:count]]


def _from_sample(sample: Sample) -> EvalClip:
    assert sample.video is not None
    try:
        video, wave = StoredVideo.of(sample.video), _wave_of(sample.video)
    except UserError as error:
        raise _damaged(sample.key, error) from error
    count = video.shape[0]
    if count != sample.meta.num_frames:
        raise UserError(
            f"clip {sample.key} has {count} frames in its mp4 but {sample.meta.num_frames} in its metadata; "
            "the shard is damaged, build it again"
        )
    names = sample.meta.truth_names or ()
    table = sample.tensors["truth"].numpy().astype(np.float64) if names else np.zeros((count, 0))
    truth = {name: table[:, column] for column, name in enumerate(names)}
    needed = samples_for(count)
    encoders = sample.meta.encoders
    return EvalClip(
        sample.key,
        sample.meta.identity,
        video,
        np.pad(wave, (0, max(0, needed - len(wave)))),
        truth,
        audio_TD=sample.tensors["audio"].float(),
        audio_encoder=encoders["audio"].id if "audio" in encoders else "",
        audio_sha256=encoders["audio"].sha256 if "audio" in encoders else "",
        latent_TChw=sample.tensors["video_latent"].float(),
        video_vae=encoders["video_vae"].sha256 if "video_vae" in encoders else "",
        text_LD=sample.tensors["text_features"].float() if "text_features" in sample.tensors else None,
        text_encoder=encoders["text"].id if "text" in encoders else "",
        structure_TV=sample.tensors["structure"],
        flame_TV=sample.tensors.get("flame"),
    )


def _damaged(key: str, error: UserError) -> UserError:
    return UserError(f"clip {key}: {error}; the shard is damaged, build it again")


def _wave_of(mp4: bytes) -> np.ndarray:
    """The sound of a stored clip."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(mp4)
        return read_audio(path)


def clips_to_render(count: int, frames: int, size: int, seed: int, person: int | None = None) -> SynthConfig:
    """The corpus whose val split the rendered clips are."""
    return SynthConfig.model_validate(
        {"val_clips": count, "val_frames": frames, "size": size, "seed": seed + RENDER_SEED, "person": person}
    )


def render_clips(
    count: int, frames: int, size: int, seed: int, person: int | None = None, *, quiet: bool = False
) -> list[EvalClip]:
    """Render ``count`` synthetic clips of the val split: each another person, none that training can draw.

    Args:
        person: all of them of this one instead, for a model of one person.
        quiet: no progress bar.
    """
    config = clips_to_render(count, frames, size, seed, person)
    clips = []
    for job in tqdm(jobs_of(config, "val"), desc="rendering clips", unit="clip", disable=quiet):
        clip = make_clip(job.seed, job.identity, job.frames, job.size, split="val", in_both=job.in_both)
        truth = {name: np.asarray(values, dtype=np.float64) for name, values in clip.truth.items()}
        name = f"synth-{clip.identity}"
        own, flame = torch.from_numpy(clip.structure), torch.from_numpy(clip.flame)
        clips.append(EvalClip(job.key, name, clip.frames, clip.wave, truth, structure_TV=own, flame_TV=flame))
    return clips
