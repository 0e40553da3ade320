"""How a held-out clip is shown to the model: the same in every run, at every step, on any number of processes.

A clip is shown once for each sigma bucket. Over these passes every frame of either stream meets every bucket exactly
once, in an order of its own, so that within a pass the levels of the frames are as independent as in training, and each
clip fills all buckets equally. All draws are keyed by the clip and a constant; nothing of the run's enters: neither its
seed and step nor `objective.video_shift` and the model's `sigma_structure_max`.

Shape legend: K passes = sigma buckets, T latent frames.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from df_data.reading import Batch
from df_models.flow import interpolate, keyed_generator, keyed_noise
from df_models.model.dualforce import History
from df_train.figures.meter import BUCKETS
from df_train.noising import Shown, Streams
from df_train.validation.config import HeldOutHistory

SEED = 0
"""Any number would do; with another one, figures cannot be compared with those of earlier runs."""
_EDGE = 1e-3
"""Of a bucket's width, kept free on both sides, so that no rounding moves a level into the next bucket."""


def repeated(clip: Batch) -> Batch:
    """Return a batch of one clip as a batch of its K passes; tensors are views."""
    tensors = {f.name: v for f in fields(clip) if isinstance(v := getattr(clip, f.name), Tensor)}
    passes = {name: value.expand(BUCKETS, *value.shape[1:]) for name, value in tensors.items()}
    return replace(clip, keys=clip.keys * BUCKETS, **passes)


def show_held_out(passes: Batch, clean: Streams, history: HeldOutHistory) -> Shown:
    """Show a clip, with all its conditions.

    Args:
        passes: the clip, from `repeated`.
        clean: its video and structure ``[K, T, ...]``, normalised as the model wants them.
    """
    sample, device = int(passes.sample_ids[0]), clean.video.device
    given_T = given_clean(clean.video.shape[1], sample, history)
    own = 1 if history == "one_level" else len(given_T)
    drawn = (stratified(own, sample, name).expand(-1, len(given_T)) for name in Streams._fields)
    levels = (level_KT.masked_fill(given_T, 0.0) for level_KT in drawn)
    sigma = Streams(*(level_KT.to(device) for level_KT in levels))
    noise = Streams(*(_noise(x, sample, name) for name, x in clean._asdict().items()))
    past = None
    if history == "teacher_forcing":
        past = History(*clean, *(torch.zeros_like(level_KT) for level_KT in sigma))
    return Shown(
        clean,
        noise,
        Streams(*(interpolate(x, n, s) for x, n, s in zip(clean, noise, sigma))),
        sigma,
        Streams(*(level_KT > 0 for level_KT in sigma)),
        passes.audio,
        passes.reference_latent,
        passes.reference_tokens,
        passes.reference_frame,
        past,
        passes.text,
    )


def stratified(frames: int, sample: int, stream: str) -> Tensor:
    """Levels ``[K, T]`` of a stream: in its column, each frame has one level of every bucket, in random order."""
    generator = keyed_generator(SEED, 0, sample, f"validation:sigma:{stream}")
    bucket_KT = torch.rand(BUCKETS, frames, generator=generator).argsort(dim=0)
    within_KT = torch.rand(BUCKETS, frames, generator=generator)
    return (bucket_KT + _EDGE + (1.0 - 2.0 * _EDGE) * within_KT) / BUCKETS


def given_clean(frames: int, sample: int, history: HeldOutHistory) -> Tensor:
    """Bool ``[T]``, the frames shown clean: with `clean_past` those before a random one, which is not the first."""
    given_T = torch.zeros(frames, dtype=torch.bool)
    if history == "clean_past" and frames > 1:
        generator = keyed_generator(SEED, 0, sample, "validation:past")
        given_T[: int(torch.randint(1, frames, (), generator=generator))] = True
    return given_T


def _noise(clean_KT: Tensor, sample: int, stream: str) -> Tensor:
    draws = [
        keyed_noise(
            clean_KT.shape[1:], seed=SEED, step=index, sample_ids=[sample], stream=f"validation:{stream}",
            device=clean_KT.device,
        )
        for index in range(BUCKETS)
    ]  # fmt: skip
    return torch.cat(draws)
