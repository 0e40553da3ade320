"""What noise each latent frame of a training clip gets: the ways a model may learn to live with its history.

``independent``: every frame of both streams draws its own level (Diffusion Forcing). ``clean_past``: the same, and in
a share of the clips all frames before a random one are clean in both streams, as at inference; the default.
``teacher_forcing``: every noisy frame sees a separate, lightly noised copy of the true past. ``error_recycling``: the
same, with the model's own recorded errors added to that copy. ``one_level`` is no Diffusion Forcing: each stream draws
one level for all frames of a clip, as diffusion over whole clips does; such a model makes whole clips only.

Shape legend: B clips, T latent frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from df_models.errors import UserError, nearest
from df_models.flow.noise import id_list, keyed_generator
from df_models.flow.schedule import shift_sigma

HistoryMode = Literal["independent", "clean_past", "teacher_forcing", "error_recycling", "one_level"]


@dataclass(frozen=True, kw_only=True)
class HistoryConfig:
    """How noise levels are drawn.

    Attributes:
        mode: one of the ways.
        clean_past_probability: share of clips with a clean past (``clean_past``).
        context_noise_max: the history copy's level is U(0, this) per clip (``teacher_forcing``, ``error_recycling``).
        error_probability: share of clips whose history carries recorded errors (``error_recycling``).
        video_shift: Wan's shift of the video levels.
        structure_max: structure levels are U(0, this): structure is usually cleaner, so it leads.
        structure_tail: share of frames whose structure level is U(structure_max, 1) instead; with a structure_max of
            1 nothing lies above, and all levels are U(0, 1).
    """

    mode: HistoryMode = "clean_past"
    clean_past_probability: float = 0.3
    context_noise_max: float = 0.1
    error_probability: float = 0.9
    video_shift: float = 1.0
    structure_max: float = 0.7
    structure_tail: float = 0.1

    def __post_init__(self) -> None:
        modes = get_args(HistoryMode)
        if self.mode not in modes:
            raise UserError(f"history mode {self.mode!r} is none of {', '.join(modes)}{nearest(str(self.mode), modes)}")
        for name in ("clean_past_probability", "context_noise_max", "error_probability", "structure_tail"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        if not 0 < self.structure_max <= 1:
            raise UserError(f"structure_max must lie in (0, 1], not {self.structure_max}")
        if self.video_shift <= 0:
            raise UserError(f"video_shift must be positive, not {self.video_shift}")

    @property
    def separate_history(self) -> bool:
        """Whether the model gets the past as a separate copy (``df_models.History``)."""
        return self.mode in ("teacher_forcing", "error_recycling")


class Sigmas(NamedTuple):
    """Noise levels of a batch of clips.

    Attributes:
        video, structure: ``[B, T]``, float32.
        given_clean: bool ``[B, T]``, frames shown without noise (both levels 0): there is nothing to predict.
        history_video, history_structure: ``[B, T]`` levels of the history copy, or None where the mode has none.
        carries_errors: bool ``[B]``, clips whose history carries recorded errors.
    """

    video: Tensor
    structure: Tensor
    given_clean: Tensor
    history_video: Tensor | None
    history_structure: Tensor | None
    carries_errors: Tensor


def sample_sigmas(
    config: HistoryConfig, num_frames: int, sample_ids: Tensor | list[int], *, seed: int, step: int
) -> Sigmas:
    """Draw the noise levels of a batch on the CPU; each clip's depend on (seed, step, its id) alone."""
    draws = [_draw(config, num_frames, keyed_generator(seed, step, sample, "sigma")) for sample in id_list(sample_ids)]
    video, structure, given_clean, context, errors = (torch.stack(parts) for parts in zip(*draws))
    history = context[:, None].expand(-1, num_frames) if config.separate_history else None
    return Sigmas(video, structure, given_clean, history, history, errors)


def _draw(config: HistoryConfig, num_frames: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draw one clip; every mode takes the same numbers from the generator, so modes differ in nothing else."""
    video = shift_sigma(torch.rand(num_frames, generator=generator), config.video_shift)
    level, tail = torch.rand(2, num_frames, generator=generator)
    share, place, context, error = torch.rand(4, generator=generator)
    high = config.structure_max + (1 - config.structure_max) * level
    above = (tail < config.structure_tail) & (config.structure_max < 1)
    structure = torch.where(above, high, config.structure_max * level)
    if config.mode == "one_level":
        video, structure = (levels[:1].repeat(num_frames) for levels in (video, structure))
    given_clean = torch.zeros(num_frames, dtype=torch.bool)
    if config.mode == "clean_past" and num_frames > 1 and share < config.clean_past_probability:
        first = 1 + min(int(place * (num_frames - 1)), num_frames - 2)
        given_clean[:first] = True
        video, structure = video * ~given_clean, structure * ~given_clean
    carries = error < config.error_probability if config.mode == "error_recycling" else torch.tensor(False)
    return video, structure, given_clean, config.context_noise_max * context, carries
