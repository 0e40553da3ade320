"""Videos to be measured: generated in batches from (reference image, audio), and rebuilt by the VAE.

Shape suffixes: B clips of a batch, T pixel frames, D structure features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from df_data.format.manifest import source_of
from df_data.reading.batch import structure_vectors
from df_eval.clips import EvalClip
from df_infer.config import OTHERS, TRUTH
from df_infer.pipeline import Pipeline, pool_of
from df_infer.rollout import RolloutConfig, generate_latents, stream_latents
from df_infer.sampling.drive import Drive
from df_infer.sampling.structure_from import raw_structure
from df_models.encoders import DecoderSession
from df_models.encoders.weights import split_spec
from df_models.errors import UserError
from df_models.text import PROMPT_FILE, pad_text
from df_models.time import SLOTS, from_slots, latent_length, pool_audio, samples_for, to_slots, valid_pixel_length

Progress = Callable[[int], object]
Made = TypeVar("Made")


class Generated(NamedTuple):
    """A generated clip: frames uint8 [T, H, W, 3] and raw structure [T, D] (degrees for angles)."""

    frames_THWC: np.ndarray
    structure_TD: np.ndarray


def generate_clips(
    pipeline: Pipeline,
    clips: Sequence[EvalClip],
    frames: int,
    *,
    rollout: RolloutConfig,
    seed: int,
    batch_size: int,
    progress: Progress,
) -> Iterator[Generated]:
    """Generate ``frames`` pixel frames for every clip from its first frame and its audio; a batch is held at a time.

    Structure is given where ``rollout.structure_from`` says so: another model's, or the clips' own. Noise is keyed by
    the clip's index, so the result does not depend on ``batch_size``.
    """
    for start, batch in _batches(clips, batch_size):
        keys: dict[str, Any] = {"seed": seed, "sample_ids": list(range(start, start + len(batch)))}
        made = _generate(pipeline, batch, frames, rollout, keys)
        progress(len(batch))
        yield from _one_by_one(made)


def _generate(
    pipeline: Pipeline, batch: Sequence[EvalClip], frames: int, rollout: RolloutConfig, keys: Mapping[str, Any]
) -> list[Generated]:
    """Generate a batch; what it takes on the device is let go when it is done."""
    drive = given_structure(pipeline, batch, frames, rollout, keys)
    inputs = model_inputs(pipeline, batch, frames)
    latents = generate_latents(pipeline.model, *inputs, config=rollout, drive=drive, **keys)
    videos = decode(pipeline, latents.video)
    structures = from_slots(pipeline.model.denormalize_structure(latents.structure.float()).cpu())
    return [Generated(video, structure.numpy()) for video, structure in zip(videos, structures, strict=True)]


def _one_by_one(made: list[Made]) -> Iterator[Made]:
    """Hand out a batch, keeping none of what was handed out."""
    made.reverse()
    while made:
        yield made.pop()


def model_inputs(
    pipeline: Pipeline, clips: Sequence[EvalClip], frames: int
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Audio, reference latent and tokens of the first frame, and text, as the model takes them."""
    audio = torch.stack([audio_slots(pipeline, clip, frames) for clip in clips])
    if pipeline.vae is None or pipeline.reference_encoder is None:
        return audio, None, None, text_rows(pipeline, clips)
    images = _pixels(pipeline, np.stack([clip.reference_HWC for clip in clips]))
    reference = pipeline.vae.encode_image(images)
    reads = pipeline.model.config.reads_reference
    tokens = pipeline.reference_encoder.encode(images, reference) if reads else None
    return audio, reference, tokens, text_rows(pipeline, clips)


def given_structure(
    pipeline: Pipeline, clips: Sequence[EvalClip], frames: int, rollout: RolloutConfig, keys: Mapping[str, Any]
) -> Drive | None:
    """What ``rollout.structure_from`` gives; None: the model makes its own structure.

    Raises:
        UserError: the true structure is wanted, and a clip has none.
    """
    source = rollout.structure_from
    if source is None:
        return None
    if source in (TRUTH, OTHERS):  # of others: `df_eval.rows.partners` has put it into the clips
        return Drive(torch.stack([true_structure(pipeline, clip, frames) for clip in clips]))
    maker = pipeline.maker(source)
    inputs = model_inputs(maker, clips, frames)
    return Drive(raw_structure(maker.model, stream_latents(maker.model, *inputs, config=maker.rollout, **keys)))


def true_structure(pipeline: Pipeline, clip: EvalClip, frames: int) -> Tensor:
    """A clip's own structure in slots [T_lat, 4, V], in its own units, of the kind that the model takes.

    Raises:
        UserError: it has none.
    """
    stored = {"structure": clip.structure_TV, "flame": clip.flame_TV}
    found = {name: value for name, value in stored.items() if value is not None}
    if "structure" not in found:
        raise UserError(f"clip {clip.key} has no true structure (rollout.structure_from={TRUTH} or {OTHERS})")
    vectors = structure_vectors(found, source_of(pipeline.model.config.structure_layout), clip.key)
    return to_slots(vectors[:frames].float())


def rebuild_clips(
    pipeline: Pipeline, clips: Sequence[EvalClip], frames: int, *, batch_size: int, progress: Progress
) -> Iterator[np.ndarray]:
    """Encode and decode the first ``frames`` true frames: uint8 [T, H, W, 3] per clip; a batch is held at a time.

    The VAE is causal, so the first frames of a longer reconstruction are the reconstruction of the shorter clip.
    """
    for _, batch in _batches(clips, batch_size):
        videos = decode(pipeline, encode(pipeline, batch, frames))
        progress(len(batch))
        yield from _one_by_one(videos)


def encode(pipeline: Pipeline, clips: Sequence[EvalClip], frames: int) -> Tensor:
    """Latents [B, T_lat, 16, h, w] of the first ``frames`` true frames; stored ones are used if this VAE made them.

    The VAE is causal, so the latents of a clip begin with the latents of its beginning.
    """
    if all(clip.latent_TChw is not None and clip.video_vae == pipeline.video_vae.sha256 for clip in clips):
        stored = [clip.latent_TChw for clip in clips if clip.latent_TChw is not None]
        return torch.stack([latent[: latent_length(frames)] for latent in stored])
    return pipeline.video_vae.encode(torch.stack([_pixels(pipeline, clip.frames_THWC[:frames]) for clip in clips]))


def audio_slots(pipeline: Pipeline, clip: EvalClip, frames: int) -> Tensor:
    """The model's audio input [T_lat, 4, D_a] for the first ``frames`` pixel frames of a clip's audio.

    Features that the dataset stores with the clip are used if the model's own audio encoder, of the same weights, made
    them.
    """
    encoder = pipeline.audio_encoder
    if encoder is None:
        return torch.zeros(latent_length(frames), SLOTS, 0)
    made_by = (clip.audio_encoder, clip.audio_sha256)
    if clip.audio_TD is not None and made_by == (encoder.id, encoder.sha256):
        features = clip.audio_TD[: 2 * frames]
    else:
        features = encoder.encode(clip.wave_N[: samples_for(frames)], frames)
    return to_slots(pool_audio(features, pool_of(pipeline.model.config)))


def text_rows(pipeline: Pipeline, clips: Sequence[EvalClip]) -> Tensor | None:
    """The model's text input [B, 512, D_t]: the clips' stored features if the model's text encoder made them, else the
    prompt that the run was trained with; None for a model that reads no text.

    Raises:
        UserError: a clip has neither.
    """
    config = pipeline.model.config
    if not config.text_dim:
        return None
    own = None if pipeline.prompt is None else pipeline.prompt.features_LD
    made_by = split_spec(config.text_encoder)[0]
    chosen = [clip.text_LD if clip.text_encoder in (made_by, config.text_encoder) else own for clip in clips]
    rows = [pad_text(text_LD[None].float()) for text_LD in chosen if text_LD is not None]
    if len(rows) < len(clips):
        raise UserError(
            f"the model reads text of {config.text_encoder}, but a clip holds none and the run has no {PROMPT_FILE} "
            "beside its weights; build the dataset with a prompt"
        )
    return torch.cat(rows)


def decode(pipeline: Pipeline, latents: Tensor) -> list[np.ndarray]:
    """Decode latents [B, T_lat, 16, h, w] latent frame by latent frame: uint8 [T, H, W, 3] per clip."""
    session = pipeline.video_vae.decoder_session()
    pieces = []
    for index in range(latents.shape[1]):
        pieces.append(decode_next(session, latents[:, index : index + 1]))
    return [np.concatenate([piece[clip] for piece in pieces]) for clip in range(len(latents))]  # each its own array


def decode_next(session: DecoderSession, latents: Tensor) -> np.ndarray:
    """Decode a session's next latents [B, T_lat, 16, h, w]: uint8 [B, T, H, W, 3]."""
    pixels = session.decode(latents).clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()


def check_size(pipeline: Pipeline, clips: Sequence[EvalClip]) -> None:
    """Raise UserError unless the clips have the size that the model generates."""
    sizes = {clip.size for clip in clips}
    if sizes != {(pipeline.size, pipeline.size)}:
        shown = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise UserError(f"the clips are {shown} pixels, the model generates {pipeline.size}x{pipeline.size}")


def _pixels(pipeline: Pipeline, frames: np.ndarray) -> Tensor:
    device = next(pipeline.model.parameters()).device
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device).movedim(-1, -3).float() / 255


def _batches(clips: Sequence[EvalClip], size: int) -> Iterator[tuple[int, Sequence[EvalClip]]]:
    for start in range(0, len(clips), size):
        yield start, clips[start : start + size]


def fitting_lengths(
    frames: Sequence[int], clips: Sequence[EvalClip], most: int | None = None
) -> tuple[list[int], dict[int, str]]:
    """The lengths that all clips have, and for the others the reason why they are not measured.

    Args:
        most: pixel frames that the model makes at most, None if any number.
    """
    shortest = min(clip.length for clip in clips)
    longest = valid_pixel_length(shortest)
    reason = f"the clips have {shortest} frames; the longest length to measure is --frames {longest}"
    missing = {count: reason for count in frames if count > shortest}
    if most is not None:
        reason = f"the model makes whole clips of at most {most} frames, as in its training"
        missing |= {count: reason for count in frames if count > most}
    for count in frames:
        latent_length(count)
    return [count for count in frames if count not in missing], missing
