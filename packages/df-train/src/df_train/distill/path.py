"""The path from noise to data that generation takes, for all latent frames of a clip at once.

Generation denoises one chunk after the other, each upon its finished past. With that past as a separate history
(`df_models.History`) all chunks of a clip go through one forward pass, each at any step of its own.

Shape legend: B clips, T latent frames, S = 4 slots, V structure entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from df_infer.sampling.schedule import Schedule
from df_models.flow import clean_from_velocity, euler_step, interpolate, keyed_generator
from df_models.model.dualforce import History, Velocity
from df_train.noising import Shown, Streams

Predict = Callable[[Shown], Velocity]


def draw_places(steps: int, frames: int, ids: list[int], *, seed: int, step: int, chunk: int = 1) -> Tensor:
    """How many of the path's steps each chunk of latent frames has behind it, each of 0 to `steps - 1` alike.

    Returns:
        long `[B, T]`, the same within a chunk.
    """
    chunks = -(-frames // chunk)
    draws = [torch.randint(steps, (chunks,), generator=keyed_generator(seed, step, i, "distill")) for i in ids]
    return torch.stack(draws).repeat_interleave(chunk, dim=1)[:, :frames]


def levels_at(schedule: Schedule, places_BT: Tensor, pinned_B: Tensor) -> Streams:
    """Noise levels `[B, T]` of both streams; the first video frame of pinned clips is clean."""
    video, structure = (row.to(places_BT.device)[places_BT] for row in schedule)
    video[:, 0] *= ~pinned_B
    return Streams(video, structure)


def upon(shown: Shown, past: Streams, noise: Streams, level: float) -> Shown:
    """The same clip upon a past, which enters the model at the noise level at which generation caches it."""
    sigma_BT = torch.full_like(shown.sigma.video, level)
    video, structure = (interpolate(x, n, sigma_BT) for x, n in zip(past, noise))
    return replace(shown, history=History(video, structure, sigma_BT, sigma_BT))


def placed(shown: Shown, sigma: Streams, first_BT: Tensor, guess_BTSV: Tensor | None) -> Shown:
    """The clip at these noise levels; what is clean there is not learnt.

    Args:
        first_BT: frames at the beginning of the path.
        guess_BTSV: what the structure starts from there instead of its own (:func:`guess_of`); None: its own.
    """
    structure = shown.clean.structure
    if guess_BTSV is not None:
        structure = torch.where(first_BT[:, :, None, None], guess_BTSV, structure)
    noisy = (interpolate(x, n, s) for x, n, s in zip((shown.clean.video, structure), shown.noise, sigma))
    learnt = (known & (level > 0) for known, level in zip(shown.learnt, sigma))
    return replace(shown, noisy=Streams(*noisy), sigma=sigma, learnt=Streams(*learnt))


def guess_of(past_BTSV: Tensor, chunk: int = 1) -> Tensor:
    """The last slot before each chunk, zeros (the mean) before the first: `rollout.struct_start: previous`."""
    before = torch.cat([torch.zeros_like(past_BTSV[:, :1]), past_BTSV[:, chunk - 1 : -1 : chunk]], dim=1)
    return before[:, :, -1:].repeat_interleave(chunk, dim=1)[:, : past_BTSV.shape[1]].expand_as(past_BTSV)


def advanced(shown: Shown, velocity: Velocity, sigma: Streams) -> Shown:
    """Each latent frame one step further, by Euler's rule, at the levels that it has then."""
    pairs = zip(shown.noisy, velocity, shown.sigma, sigma)
    return replace(shown, noisy=Streams(*(euler_step(x, v.float(), s, t) for x, v, s, t in pairs)), sigma=sigma)


def end_of(shown: Shown, predict: Predict) -> Streams:
    """Where a prediction says that the path ends, `[B, T, ...]` clean; frames that are clean stay what they are."""
    velocity = predict(shown)
    return Streams(*(clean_from_velocity(x, v.float(), s) for x, v, s in zip(shown.noisy, velocity, shown.sigma)))


def towards(shown: Shown, end: Streams) -> Shown:
    """The same noisy clip, with `end` as what it is a noisy version of: the answer is then `(noisy - end) / sigma`."""
    noise = []
    for x, clean, sigma_BT in zip(shown.noisy, end, shown.sigma):
        level = sigma_BT.view(*sigma_BT.shape, *(1,) * (x.ndim - 2))
        noise.append(torch.where(level > 0, clean + (x - clean) / level.clamp_min(1e-6), x))
    return replace(shown, clean=end, noise=Streams(*noise))


def own_clip(
    shown: Shown,
    predict: Predict,
    schedule: Schedule,
    *,
    rounds: int,
    pinned_B: Tensor,
    guesses: bool,
    history_noise: Streams,
    level: float,
) -> tuple[Streams, Streams]:
    """A clip that the model generates, and the past that it generated it upon.

    The first round generates every chunk of latent frames upon the true past, each further one upon the round before,
    with the same noise (`shown.noise`). A chunk is final after as many rounds as there are chunks up to it.

    Args:
        shown: its `clean` is the true clip.
        guesses: whether the structure starts from the frame before the chunk (:func:`guess_of`).
    """
    past = made = shown.clean
    zero_BT = torch.zeros(shown.sigma.video.shape, dtype=torch.long, device=shown.sigma.video.device)
    for _ in range(rounds):
        past = made
        state = upon(shown, past, history_noise, level)
        guess = guess_of(past.structure, shown.chunk) if guesses else None
        state = placed(state, levels_at(schedule, zero_BT, pinned_B), zero_BT == 0, guess)
        for place in range(schedule.steps):
            ahead = levels_at(schedule, zero_BT + place + 1, pinned_B)
            state = advanced(state, predict(state), ahead)
        made = state.noisy
    return past, made
