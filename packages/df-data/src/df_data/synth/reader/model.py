"""The network of the reader: a small residual CNN from a 64x64 image to pose, articulators, identity and presence.

Shapes: B batch, C channels, H, W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from df_data.synth.head.identity import IDENTITY_DIM

INPUT_SIZE = 64
READINGS = ("yaw", "pitch", "roll", "mouth_open", "lip_width", "blink")
# Mean and spread of each reading over the training states, so that the network predicts numbers around 1.
_MEAN = (0.0, 0.0, 0.0, 0.083, 0.373, 0.32)
_SPREAD = (16.0, 10.0, 7.5, 0.07, 0.073, 0.32)
NUM_OUTPUTS = len(READINGS) + IDENTITY_DIM + 1
"""Readings, identity vector, logit of presence."""


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.relu(x_BCHW + self.body(x_BCHW))


def _down(width_in: int, width_out: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width_out, kernel, stride=2, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out), nn.ReLU())


class ReaderNet(nn.Module):
    """``[B, 3, 64, 64]`` in [0, 1] to standardised outputs ``[B, NUM_OUTPUTS]``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _down(3, 32, 5), _Block(32), _down(32, 64, 3), _Block(64), _down(64, 96, 3), _Block(96), _down(96, 128, 3)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128 * 16, 160), nn.ReLU(), nn.Linear(160, NUM_OUTPUTS))
        self.register_buffer("mean", torch.tensor(_MEAN))
        self.register_buffer("spread", torch.tensor(_SPREAD))
        self.mean: Tensor
        self.spread: Tensor

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.head(self.body((image_BCHW - 0.5) * 4.0)).float()

    def standardize(self, readings: Tensor) -> Tensor:
        """Readings in their units ``[..., 6]`` to what the network predicts."""
        return (readings - self.mean) / self.spread

    def split(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs to readings in their units ``[..., 6]``, identity ``[..., D_id]`` and presence logit ``[...]``."""
        readings, identity, presence = output.split([len(READINGS), IDENTITY_DIM, 1], dim=-1)
        return readings * self.spread + self.mean, identity, presence[..., 0]
