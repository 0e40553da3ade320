"""From clean clips to what the model is shown: noise levels, noise, dropped conditions, history.

Every random number is keyed by (seed, step, sample id, purpose), so a clip is shown the same on one process or eight.

Shape legend: B clips, T latent frames, C latent channels, h, w latent cells, S = 4 slots, D features, N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from df_data.reading import Batch
from df_models import DualForce
from df_models.flow import (
    ErrorBank,
    HistoryConfig,
    Sigmas,
    interpolate,
    keyed_generator,
    keyed_noise,
    sample_sigmas,
)
from df_models.model.dualforce import History
from df_train.config import ObjectiveConfig

HISTORY_STREAM = "history:"


class Streams(NamedTuple):
    """Something of both streams: `[B, T, C, h, w]` and `[B, T, S, D]`, or levels `[B, T]` each.

    A stream that the model lacks has width 0.
    """

    video: Tensor
    structure: Tensor


def clean_streams(model: DualForce, batch: Batch) -> Streams:
    """A batch's streams as the model has them: normalised, and of width 0 where it has none."""
    video = batch.video if model.config.has_video else batch.video[:, :, :0, :0, :0]
    return Streams(video, model.normalize_structure(batch.structure))


@dataclass(frozen=True)
class Shown:
    """One batch as the model sees it, and what it is asked for.

    Attributes:
        clean, noise, noisy: both streams, normalised; the target is `noise - clean`.
        sigma: noise levels.
        learnt: bool levels, which frames count in the losses: not those given clean, whose noise is not to be seen, and
            not the first video frame of crops that begin within their clip (`df_train.data.crops`).
        audio, reference_latent, reference_tokens, reference_frame, text: conditions, with some clips' set to zero; text
            is `[B, L, D]`, not yet padded to the rows that a model reads, None if the clips have none.
        history: the separate past of teacher forcing and error recycling.
        chunk: latent frames that are denoised together upon the history.
        known: bool `[B, T, S, D]`, entries of the structure that are given clean within frames of any level, and are
            not learnt (`df_train.given`); None: the model is not told of any.
        audio_future: `[B]`, slots of audio heard ahead (`df_train.hearing`); None: all that the model hears.
    """

    clean: Streams
    noise: Streams
    noisy: Streams
    sigma: Streams
    learnt: Streams
    audio: Tensor
    reference_latent: Tensor
    reference_tokens: Tensor
    reference_frame: Tensor
    history: History | None
    text: Tensor | None = None
    known: Tensor | None = None
    audio_future: Tensor | None = None
    chunk: int = 1


@dataclass
class Banks:
    """The recorded errors of both streams (history mode error_recycling)."""

    video: ErrorBank
    structure: ErrorBank

    _TYPICAL_SIGMA = 0.4

    @torch.no_grad()
    def record(self, predicted: Streams, shown: Shown) -> None:
        """Keep one frame's error of each clip and stream: where sigma is nearest to 0.4, half-way through denoising.

        It always is a frame that was learnt: neither one that was given clean, of which there is no error, nor the
        first video frame of a crop that is not anchored. A clip without such frames has none, nor has the structure
        of one that was given fields of it: its error is known to be zero there, and is not in generation.
        """
        for name in Streams._fields:
            learnt_BT = getattr(shown.learnt, name)
            if name == "structure" and shown.known is not None:
                learnt_BT = learnt_BT & ~shown.known.flatten(2).any(dim=2)
            distance_BT = (getattr(shown.sigma, name) - self._TYPICAL_SIGMA).abs().masked_fill(~learnt_BT, torch.inf)
            frame_B1, recorded_B = distance_BT.argmin(dim=1, keepdim=True), learnt_BT.any(dim=1)
            pair = getattr(predicted, name), getattr(shown.clean, name)
            guess, truth = (torch.take_along_dim(x, _behind(frame_B1, x), dim=1) for x in pair)
            getattr(self, name).add(guess[recorded_B], truth[recorded_B])

    def state_dict(self) -> dict[str, Tensor]:
        """The errors as tensors."""
        return {
            f"{name}.{key}": value
            for name in Streams._fields
            for key, value in getattr(self, name).state_dict().items()
        }

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        for name in Streams._fields:
            prefix = f"{name}."
            own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            getattr(self, name).load_state_dict(own)


def _behind(index_B1: Tensor, like: Tensor) -> Tensor:
    return index_B1.reshape(*index_B1.shape, *(1,) * (like.ndim - 2))


def history_config(objective: ObjectiveConfig, structure_max: float) -> HistoryConfig:
    """The noise levels' configuration; the structure's limit comes from the model, which carries it to inference."""
    history = objective.history
    return HistoryConfig(
        mode=history.mode,
        clean_past_probability=history.clean_past_probability,
        context_noise_max=history.context_noise_max,
        error_probability=history.error_probability,
        video_shift=objective.video_shift,
        structure_max=structure_max,
        structure_tail=objective.structure_tail,
    )


def show(
    batch: Batch,
    clean: Streams,
    objective: ObjectiveConfig,
    levels: HistoryConfig,
    banks: Banks | None,
    *,
    seed: int,
    step: int,
) -> Shown:
    """Noise a batch for one step.

    Args:
        clean: the batch's video and structure, normalised as the model wants them.
        levels: from `history_config`.
        banks: recorded errors; needed by error_recycling alone.
    """
    device, ids = clean.video.device, batch.sample_ids.tolist()
    drawn = sample_sigmas(levels, clean.video.shape[1], ids, seed=seed, step=step)
    drawn = Sigmas(*(None if value is None else value.to(device) for value in drawn))  # type: ignore[arg-type]
    drop_audio, drop_reference, start, drop_text = _chances(objective, ids, seed, step).to(device)
    noise = noise_like(clean, ids, seed=seed, step=step, prefix="")
    start_clean = start & (batch.reference_frame == 0)
    given_clean = Streams(drawn.given_clean.clone(), drawn.given_clean)
    given_clean.video[:, 0] |= start_clean
    sigma = Streams(drawn.video * ~given_clean.video, drawn.structure)
    learnt = Streams(~given_clean.video, ~given_clean.structure)
    learnt.video[:, 0] &= batch.anchored
    return Shown(
        clean,
        noise,
        Streams(*(interpolate(x, n, s) for x, n, s in zip(clean, noise, sigma))),
        sigma,
        learnt,
        _without(batch.audio, drop_audio),
        _without(batch.reference_latent, drop_reference),
        _without(batch.reference_tokens, drop_reference),
        torch.where(drop_reference, -1, batch.reference_frame),
        _history(clean, drawn, banks, ids, seed, step) if levels.separate_history else None,
        None if batch.text is None else _without(batch.text, drop_text),
    )


def _chances(objective: ObjectiveConfig, ids: list[int], seed: int, step: int) -> Tensor:
    """Bool [4, B]: whose audio is dropped, whose reference, whose first frame may be given clean, whose text drops."""
    shares = torch.tensor([objective.drop_audio, objective.drop_reference, objective.start_clean, objective.drop_text])
    draws = [torch.rand(4, generator=keyed_generator(seed, step, sample, "conditions")) for sample in ids]
    return (torch.stack(draws) < shares).T


def noise_like(clean: Streams, ids: list[int], *, seed: int, step: int, prefix: str) -> Streams:
    """Noise of the shapes of both streams, keyed by (seed, step, sample id, prefix and stream)."""
    return Streams(
        *(
            keyed_noise(x.shape[1:], seed=seed, step=step, sample_ids=ids, stream=prefix + name, device=x.device)
            for name, x in clean._asdict().items()
        )
    )


def _without(condition: Tensor, dropped_B: Tensor) -> Tensor:
    return condition * ~dropped_B.view(-1, *(1,) * (condition.ndim - 1))


def _history(clean: Streams, drawn: Sigmas, banks: Banks | None, ids: list[int], seed: int, step: int) -> History:
    assert drawn.history_video is not None and drawn.history_structure is not None
    past = clean
    if banks is not None:
        carries = drawn.carries_errors
        past = Streams(
            banks.video.corrupt(clean.video, carries, ids, seed=seed, step=step, stream="video"),
            banks.structure.corrupt(clean.structure, carries, ids, seed=seed, step=step, stream="structure"),
        )
    noise = noise_like(clean, ids, seed=seed, step=step, prefix=HISTORY_STREAM)
    return History(
        interpolate(past.video, noise.video, drawn.history_video),
        interpolate(past.structure, noise.structure, drawn.history_structure),
        drawn.history_video,
        drawn.history_structure,
    )
