"""The model's own errors, recorded in training, to be put on the history it will see (history mode error_recycling).

At inference the history is what the model generated, errors included. Recording `predicted clean - clean` and adding
such errors to the clean frames of training clips shows it that history without running a rollout (Stable Video
Infinity, LongLive 2).

Shape legend: B clips, T latent frames, E recorded errors, C latent channels, h, w latent cells, S slots, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from df_models.errors import UserError

_TYPICAL_SIGMA = 0.4


class ErrorBank:
    """A ring of the newest errors, one latent frame each, of both streams together."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._video_ECHW: Tensor | None = None
        self._structure_ESD: Tensor | None = None
        self._written = 0

    @property
    def filled(self) -> int:
        """How many errors can be drawn."""
        return min(self._written, self.capacity)

    @torch.no_grad()
    def record(self, video_BTChw: Tensor, structure_BTSD: Tensor, sigma_BT: Tensor) -> None:
        """Keep one frame's errors of each clip: the one whose sigma is nearest to 0.4, half-way through denoising."""
        frame_B = (sigma_BT - _TYPICAL_SIGMA).abs().argmin(dim=1)
        rows_B = torch.arange(min(len(frame_B), self.capacity), device=frame_B.device)
        chosen_B = frame_B[rows_B]
        video, structure = video_BTChw[rows_B, chosen_B].float(), structure_BTSD[rows_B, chosen_B].float()
        if self._video_ECHW is None or self._structure_ESD is None:
            self._video_ECHW = video.new_zeros(self.capacity, *video.shape[1:])
            self._structure_ESD = structure.new_zeros(self.capacity, *structure.shape[1:])
        places = (self._written + rows_B) % self.capacity
        self._video_ECHW[places] = video
        self._structure_ESD[places] = structure
        self._written += len(places)

    def draw(self, choice_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The errors at `choice` (int64 [B, T], any non-negative numbers): video [B, T, C, h, w], structure [B, T, S, D]."""
        assert self._video_ECHW is not None and self._structure_ESD is not None, "nothing was recorded yet"
        index = choice_BT % self.filled
        return self._video_ECHW[index], self._structure_ESD[index]

    def state_dict(self) -> dict[str, Tensor]:
        """The recorded errors by name; empty before the first."""
        if self._video_ECHW is None or self._structure_ESD is None:
            return {}
        return {
            "errors.video": self._video_ECHW,
            "errors.structure": self._structure_ESD,
            "errors.written": torch.tensor(self._written),
        }

    def load_state_dict(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restore what `state_dict` gave.

        Raises:
            UserError: it was recorded with another capacity.
        """
        if "errors.video" not in tensors:
            return
        if len(tensors["errors.video"]) != self.capacity:
            raise UserError(
                f"the checkpoint keeps {len(tensors['errors.video'])} recorded errors, objective.history.error_bank is "
                f"{self.capacity}; set it back"
            )
        self._video_ECHW = tensors["errors.video"].to(device)
        self._structure_ESD = tensors["errors.structure"].to(device)
        self._written = int(tensors["errors.written"])
