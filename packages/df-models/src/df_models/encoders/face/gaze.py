"""L2CS-Net: where a face looks, as two angles. Its weights are published as a state dict; the user brings them.

Shape legend: B batch, T faces, S = 448 pixels a side, N = 90 bins.

A ResNet-50 and two linear layers, one for each angle. Either gives 90 numbers for bins of 4 degrees from -180 on; the
angle is the mean of the bins by their softmax. In its own code the two are called pitch and yaw, in this order, while
the layers are called ``fc_yaw_gaze`` and ``fc_pitch_gaze``; its vector of an angle pair (``gazeto3d``) turns by the
first about the vertical axis, so the layers' names are right: the first angle is the horizontal one.

Sources: Abdelrahman et al., "L2CS-Net: Fine-Grained Gaze Estimation in Unconstrained Environments" (2022);
Ahmednull/L2CS-Net, ``l2cs/model.py`` (layers; ``fc_finetune`` is in the file and in no use), ``l2cs/pipeline.py``
(bins), ``l2cs/utils.py`` (image of 448 pixels, ImageNet's mean and deviation; the vector). The weights of Gaze360 alone
have these bins (those of MPIIFaceGaze have 28 of 3 degrees, and are refused).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from df_models.encoders.face.resnet import FEATURES, ResNet50
from df_models.encoders.weights import Origin, find_file, hash_files, load_strict, locate, read_tensors
from df_models.errors import UserError

SIZE = 448
BINS, BIN_DEGREES, FIRST_DEGREES = 90, 4.0, -180.0
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 8
"""Faces at a time; bounds memory, changes nothing."""
UNUSED = "fc_finetune."
FILES = ("L2CSNet_gaze360.pkl", "l2cs_gaze360.safetensors")
ORIGIN = Origin(
    "l2cs_gaze360",
    "by https://github.com/Ahmednull/L2CS-Net; trained on Gaze360, which has its own",
    "fetch L2CSNet_gaze360.pkl as https://github.com/Ahmednull/L2CS-Net says, and give its path",
)


class GazeTowers(ResNet50):
    """The trunk and a linear layer for each angle."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_yaw_gaze = nn.Linear(FEATURES, BINS)
        self.fc_pitch_gaze = nn.Linear(FEATURES, BINS)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Return ``[B, 2, 90]``, horizontal and vertical."""
        features_BF = super().forward(image_B3HW)
        return torch.stack([self.fc_yaw_gaze(features_BF), self.fc_pitch_gaze(features_BF)], dim=1)


class GazeNetwork:
    """The network, frozen.

    Args:
        module: with its weights.
        weights: the file that they are of.
    """

    def __init__(self, module: GazeTowers, weights: Path) -> None:
        self.id, self.licence = ORIGIN.name, ORIGIN.licence
        self.sha256 = hash_files([weights])
        self.module = module.eval().requires_grad_(False)

    @torch.no_grad()
    def angles(self, faces_TSSC: np.ndarray) -> np.ndarray:
        """Return the horizontal and vertical angle in degrees, float64 ``[T, 2]``, of uint8 RGB ``[T, 448, 448, 3]``.

        Raises:
            UserError: the faces are of another size or kind.
        """
        if faces_TSSC.dtype != np.uint8 or faces_TSSC.shape[1:] != (SIZE, SIZE, 3):
            found = f"{faces_TSSC.dtype} {list(faces_TSSC.shape)}"
            raise UserError(f"{self.id} takes uint8 faces of [T, {SIZE}, {SIZE}, 3], not {found}; crop them first")
        parts = [self.module(normalised(faces_TSSC[k : k + BATCH])) for k in range(0, len(faces_TSSC), BATCH)]
        return angles_of(torch.cat(parts)).numpy() if parts else np.zeros((0, 2))


def normalised(faces_TSSC: np.ndarray) -> Tensor:
    """Return uint8 images as the network reads them: float32 ``[T, 3, S, S]``."""
    images = torch.from_numpy(np.ascontiguousarray(faces_TSSC)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (images - mean) / deviation


def angles_of(bins_T2N: Tensor) -> Tensor:
    """Return the angles in degrees, float64 ``[T, 2]``, of the numbers that the network gives its bins."""
    return bins_T2N.double().softmax(dim=-1) @ torch.arange(BINS, dtype=torch.float64) * BIN_DEGREES + FIRST_DEGREES


def gaze_vectors(angles_T2: np.ndarray) -> np.ndarray:
    """Return unit vectors ``[T, 3]`` of horizontal and vertical angles in degrees: x right, y down, z away."""
    across_T, down_T = np.radians(angles_T2).T
    return -np.stack([np.cos(down_T) * np.sin(across_T), np.sin(down_T), np.cos(down_T) * np.cos(across_T)], axis=-1)


def load(location: str) -> GazeNetwork:
    """Load the network from the file or directory that the user names.

    Raises:
        UserError: the weights cannot be found, hold pickled objects, or are not this network's.
    """
    path = find_file(ORIGIN, locate(ORIGIN, location), FILES)
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if not str(name).startswith(UNUSED)}
    module = GazeTowers()
    load_strict(module, tensors, ORIGIN, path)
    return GazeNetwork(module, path)
