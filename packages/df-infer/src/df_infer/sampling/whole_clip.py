"""Generation of a whole clip at once (`rollout.chunk: null`), all frames denoised together.

A model that was trained with one noise level for all frames of a clip has never seen a clean past beside a noisy
present, so it cannot go on frame by frame from a cache. It makes a clip as it learnt to: every frame at the same level
from noise to clean, each seeing itself and the earlier ones. Such a clip is at most as long as those of its training,
and nothing of it can be shown before all of it is done.

Shape legend: B batch, T latent frames, S = 4 slots, D features.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from df_infer.config import RolloutConfig
from df_models import DualForceConfig
from df_models.errors import UserError
from df_models.time import pixel_length


def check_levels(model: DualForceConfig, config: RolloutConfig, frames: int | None = None) -> None:
    """Refuse to generate in a way that a model's noise levels in training do not allow.

    Args:
        frames: latent frames of the clip; None: not known yet.

    Raises:
        UserError: with the setting that would do.
    """
    longest = model.one_level_frames
    if not longest:
        return
    if config.chunk is not None:
        raise UserError(
            "the model was trained with one noise level for all frames of a clip, so it makes whole clips only, not "
            f"{config.chunk} latent frames at a time; set rollout.chunk=null (--chunk null)"
        )
    if frames is not None and frames > longest:
        most = pixel_length(longest)
        raise UserError(
            f"the model makes whole clips, of at most {longest} latent frames as in its training, not {frames}; "
            f"generate at most {most} pixel frames (--frames {most})"
        )


def whole_clip(audio: Tensor | Iterable[Tensor], config: RolloutConfig) -> tuple[Tensor, RolloutConfig]:
    """Return all audio ``[B, T, 4, D]`` and the settings that make one chunk of it.

    Raises:
        UserError: there is no audio.
    """
    pieces = [audio] if isinstance(audio, Tensor) else list(audio)
    if not pieces:
        raise UserError("there is no audio to generate from")
    audio = torch.cat(pieces, dim=1)
    frames = audio.shape[1]
    return audio, config.model_copy(update={"chunk": frames, "window": frames, "sinks": 0})
