"""What the tokenizer is trained on: rendered people, speaking or in random motion; batches of such or other clips.

Shape legend: N clips, B batch, P pixel frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from df_data.common.processes import worker_pool
from df_data.synth.clip import face_tracks
from df_data.synth.head.face_state import FaceTracks, random_tracks
from df_data.synth.head.identity import Identity
from df_data.synth.head.render import eye_boxes, render
from df_data.synth.seeding import rng_for
from df_data.synth.speech.speech import make_speech
from df_data.synth.speech.voice import make_voice
from df_models.time import samples_for
from df_train.tokenizer.config import TokenizerConfig, TokenizerStage

TRAIN_IDENTITIES, VAL_IDENTITIES = 20_000_000, 21_000_000
"""First identities of the tokenizer's people: far from those that corpora and the reader use."""

SLOW = {"yaw", "pitch", "roll", "tx", "ty", "tz", "light_azimuth", "light_elevation", "light_intensity"}
SLOW_PERIOD, FAST_PERIOD = 20, 4


@dataclass(frozen=True)
class Pool:
    """Clips in memory: frames uint8 ``[N, P, H, W, 3]`` and boxes in pixels ``[N, P, R, 4]``.

    The regions R are the mouth and, of rendered people, both eyes.
    """

    frames: np.ndarray
    boxes: np.ndarray


def smooth_tracks(rng: np.random.Generator, num_frames: int) -> FaceTracks:
    """Random key states joined smoothly: pose and light turn within 0.8 s, articulators within 0.16 s."""
    times = np.arange(num_frames)
    joined = {}
    keys = random_tracks(rng, num_frames // FAST_PERIOD + 3)
    for field in fields(FaceTracks):
        period = SLOW_PERIOD if field.name in SLOW else FAST_PERIOD
        place = times / period + rng.uniform()
        whole = place.astype(int)
        ease = 0.5 - 0.5 * np.cos(np.pi * (place - whole))
        values = getattr(keys, field.name)
        joined[field.name] = values[whole] * (1 - ease) + values[whole + 1] * ease
    return FaceTracks(**joined)


def render_pools(config: TokenizerConfig) -> tuple[Pool, dict[str, Pool]]:
    """Render the training clips, and validation clips of other people: ``moving`` at random, and ``speaking``."""
    data = config.data
    speaking = round(data.clips * data.speaking)
    jobs = [_Job(TRAIN_IDENTITIES + i, config.seed, data.frames, data.size, i < speaking) for i in range(data.clips)]
    held_out = [_Job(VAL_IDENTITIES + i, config.seed, data.val_frames, data.size, False) for i in range(data.val_clips)]
    with worker_pool(data.workers) as workers:
        return _gather(workers, jobs, "render"), {
            "moving": _gather(workers, held_out, "render val"),
            "speaking": _gather(workers, [replace(job, speaking=True) for job in held_out], "render val, speaking"),
        }


@dataclass(frozen=True)
class _Job:
    identity: int
    seed: int
    frames: int
    size: int
    speaking: bool


def _gather(workers: ProcessPoolExecutor, jobs: list[_Job], name: str) -> Pool:
    done = list(tqdm(workers.map(_render, jobs, chunksize=8), total=len(jobs), desc=name, unit="clip"))
    return Pool(np.stack([frames for frames, _ in done]), np.stack([boxes for _, boxes in done]))


def _render(job: _Job) -> tuple[np.ndarray, np.ndarray]:
    rng = rng_for("tokenizer", job.seed, job.identity)
    tracks = _speaking_tracks(job) if job.speaking else smooth_tracks(rng, job.frames)
    clip = render(Identity.sample(job.identity), tracks, job.size)
    return clip.frames, np.concatenate([clip.mouth_boxes[:, None], eye_boxes(clip.landmarks2d, job.size)], axis=1)


def _speaking_tracks(job: _Job) -> FaceTracks:
    split = "train" if job.identity < VAL_IDENTITIES else "val"
    speech = make_speech(job.identity, split, make_voice(job.identity), samples_for(job.frames))
    return face_tracks(job.identity, speech, job.frames)


def stage_at(step: int, stages: Sequence[TokenizerStage]) -> TokenizerStage:
    """Return the stage that a step (from 0) belongs to."""
    ends = accumulate(stage.steps for stage in stages)
    return next(stage for stage, end in zip(stages, ends, strict=True) if step < end)


def batch_at(step: int, pool: Pool, config: TokenizerConfig) -> tuple[Tensor, Tensor]:
    """Return the batch of a step, which depends on the seed and the step alone, so that resuming is exact.

    Returns:
        Video ``[B, 3, P, H, W]`` in [-1, 1] and the extra weight of mouth and eyes ``[B, 1, P, H, W]``.
    """
    stage, rng = stage_at(step, config.stages), rng_for("tokenizer batch", config.seed, step)
    clips = rng.integers(len(pool.frames), size=stage.batch_size)
    start = int(rng.integers(pool.frames.shape[1] - stage.frames + 1))
    window = slice(start, start + stage.frames)
    frames = torch.from_numpy(pool.frames[clips, window]).permute(0, 4, 1, 2, 3)
    video = mix(frames.float() / 127.5 - 1.0, config.mixtures, rng)
    boxes = torch.from_numpy(pool.boxes[clips, window])
    weights = region_weights(boxes, (config.loss.mouth, config.loss.eyes, config.loss.eyes), frames.shape[-1])
    if config.flips:
        video, weights = mirror(video, weights, config.flips, rng)
    return video.contiguous(memory_format=torch.channels_last_3d), weights


def mirror(video_BCPHW: Tensor, weights_B1PHW: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirror a share of the clips left to right, each with its weights."""
    turned = torch.from_numpy(rng.random(len(video_BCPHW)) < share).view(-1, 1, 1, 1, 1)
    return video_BCPHW.flip(-1).where(turned, video_BCPHW), weights_B1PHW.flip(-1).where(turned, weights_B1PHW)


def mix(video_BCPHW: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Replace a share of the clips by mixtures that no render shows, so that other images survive the VAE too.

    A mixture is a clip with its colours exchanged, turned by a multiple of 90 degrees, and blended along a random
    soft edge with another clip of the batch.
    """
    mixed = video_BCPHW.clone()
    for index in np.flatnonzero(rng.random(len(video_BCPHW)) < share):
        other = int(rng.integers(len(video_BCPHW)))
        turned = video_BCPHW[other, rng.permutation(3).tolist()].rot90(int(rng.integers(4)), (2, 3))
        mask = _soft_edge(video_BCPHW.shape[-1], rng)
        mixed[index] = mask * video_BCPHW[index] + (1 - mask) * turned * float(rng.uniform(-1, 1))
    return mixed


def _soft_edge(size: int, rng: np.random.Generator) -> Tensor:
    angle, shift, width = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.4), rng.uniform(0.01, 0.4)
    grid = torch.linspace(-1, 1, size)
    distance = np.cos(angle) * grid[None, :] + np.sin(angle) * grid[:, None] - shift
    return torch.sigmoid(distance / width)


def region_weights(boxes_BPR4: Tensor, of_regions: Sequence[float], size: int) -> Tensor:
    """Return ``[B, 1, P, H, W]``: a region's weight inside its box, the largest where they overlap, 0 outside."""
    grid = torch.arange(size) + 0.5
    x0, y0, x1, y1 = boxes_BPR4[..., None].unbind(dim=3)
    inside_x = (grid >= x0) & (grid <= x1)
    inside_y = (grid >= y0) & (grid <= y1)
    inside_BPRHW = inside_y[..., :, None] & inside_x[..., None, :]
    weights = torch.tensor(of_regions[: boxes_BPR4.shape[2]], dtype=torch.float32).view(-1, 1, 1)
    return (inside_BPRHW * weights).amax(dim=2)[:, None]
