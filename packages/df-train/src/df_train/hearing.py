"""How much audio ahead a clip hears: all that the model can, or in a share of the clips (`objective.shorten_audio`) a
random part of it, so that one model serves several latencies (`rollout.audio_future`)."""

from __future__ import annotations

import torch
from torch import Tensor

from df_models import DualForceConfig
from df_models.errors import UserError
from df_models.flow import keyed_generator
from df_train.config import ObjectiveConfig


def check_hearing(objective: ObjectiveConfig, model: DualForceConfig) -> None:
    """Refuse to shorten what a model does not have.

    Raises:
        UserError: the model hears no audio ahead.
    """
    if objective.shorten_audio > 0 and not model.hears:
        raise UserError("objective.shorten_audio is above 0, but the model hears no audio (audio_dim=0)")
    if objective.shorten_audio > 0 and not model.audio_future:
        raise UserError("objective.shorten_audio is above 0, but the model hears no audio ahead (audio_future=0)")


def slots_ahead(share: float, audio_future: int, ids: list[int], *, seed: int, step: int) -> Tensor:
    """Slots heard ahead, int64 ``[B]``: in a share of the clips any number from 0 to all, each equally often."""
    draws = [torch.rand(2, generator=keyed_generator(seed, step, sample, "audio future")) for sample in ids]
    share_B, place_B = torch.stack(draws).T
    fewer_B = (place_B * (audio_future + 1)).long().clamp_max(audio_future)
    return torch.where(share_B < share, fewer_B, audio_future)
