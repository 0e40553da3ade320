"""RetinaFace with a MobileNet-0.25 body: face boxes and five points, in PyTorch.

Source: Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild" (arXiv:1905.00641); layout, priors
and variances of biubug6/Pytorch_Retinaface (MIT), whose ``mobilenet0.25_Final.pth`` loads strictly. On frontal faces
its boxes overlap YuNet's by an IoU of 0.85 to 0.98; it is two to three times slower on a CPU.

Shape legend: B images, C channels, H height, W width, P priors (two for every cell of every level).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from df_models.encoders.face.yunet import Face, shrink_image, suppress_overlaps
from df_models.encoders.weights import Origin, load_strict, read_tensors
from df_models.errors import UserError
from df_models.files import sha256_file

STRIDES = (8, 16, 32)
PRIOR_SIZES = ((16, 32), (64, 128), (256, 512))
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
MEAN_BGR = (104.0, 117.0, 123.0)
SLOPE = 0.1
WIDTH = 64
BODY = (
    ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)),
    ((64, 128, 2), *(((128, 128, 1),) * 5)),
    ((128, 256, 2), (256, 256, 1)),
)
"""(channels in, channels out, stride) of the separable convolutions of each stage."""
ORIGIN = Origin(
    name="retinaface",
    licence="MIT",
    how_to_get="get mobilenet0.25_Final.pth (1.7 MB) as github.com/biubug6/Pytorch_Retinaface says, and give its path",
)


class RetinaFaceNet(nn.Module):
    """The network; names of its parameters are those of the public checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        first = conv(3, 8, 3, stride=2)
        stages = [nn.Sequential(*(separable(*layer) for layer in stage)) for stage in BODY]
        stages[0] = nn.Sequential(first, *stages[0])
        self.body = nn.ModuleDict({f"stage{number}": stage for number, stage in enumerate(stages, 1)})
        self.fpn = Pyramid()
        self.ssh1, self.ssh2, self.ssh3 = Context(), Context(), Context()
        self.ClassHead = nn.ModuleList(Head(2) for _ in STRIDES)
        self.BboxHead = nn.ModuleList(Head(4) for _ in STRIDES)
        self.LandmarkHead = nn.ModuleList(Head(10) for _ in STRIDES)

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return face probability ``[B, P]``, box offsets ``[B, P, 4]`` and point offsets ``[B, P, 10]``."""
        levels, features = [], image_BCHW
        for stage in self.body.values():
            features = stage(features)
            levels.append(features)
        contexts = (self.ssh1, self.ssh2, self.ssh3)
        seen = [context(level) for context, level in zip(contexts, self.fpn(levels), strict=True)]
        classes, boxes, points = (
            torch.cat([head(level) for head, level in zip(heads, seen, strict=True)], dim=1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead)
        )
        return classes.softmax(dim=-1)[..., 1], boxes, points


class Pyramid(nn.Module):
    """Feature pyramid: three levels brought to one width, each joined with the coarser one above it."""

    def __init__(self) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (conv(width, WIDTH, 1) for width in (64, 128, 256))
        self.merge1, self.merge2 = conv(WIDTH, WIDTH, 3), conv(WIDTH, WIDTH, 3)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.output1(levels[0]), self.output2(levels[1]), self.output3(levels[2])
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[2:]))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[2:]))
        return fine, middle, coarse


class Context(nn.Module):
    """Single-stage headless context module: fields of 3x3, 5x5 and 7x7 cells side by side."""

    def __init__(self) -> None:
        super().__init__()
        quarter = WIDTH // 4
        self.conv3X3 = conv(WIDTH, WIDTH // 2, 3, active=False)
        self.conv5X5_1 = conv(WIDTH, quarter, 3)
        self.conv5X5_2 = conv(quarter, quarter, 3, active=False)
        self.conv7X7_2 = conv(quarter, quarter, 3)
        self.conv7x7_3 = conv(quarter, quarter, 3, active=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        wider = self.conv5X5_1(x_BCHW)
        fields = (self.conv3X3(x_BCHW), self.conv5X5_2(wider), self.conv7x7_3(self.conv7X7_2(wider)))
        return torch.cat(fields, dim=1).relu()


class Head(nn.Module):
    """``values`` numbers for each of the two priors of a cell."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(WIDTH, 2 * values, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv1x1(x_BCHW).permute(0, 2, 3, 1).reshape(len(x_BCHW), -1, self.values)


def conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Convolution and batch norm, with a leaky rectifier unless ``active`` is false."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.LeakyReLU(SLOPE)] if active else []))


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Depthwise and pointwise convolution."""
    return nn.Sequential(*conv(inputs, inputs, 3, stride=stride, groups=inputs), *conv(inputs, outputs, 1))


class RetinaFace:
    """Face detector for images of any size, with YuNet's interface.

    Args:
        path: the checkpoint, tensors only.
        threshold: least probability of a face.
        overlap: boxes that overlap a better one by more than this IoU are dropped.
        max_side: larger images are shrunk to this longer side first.

    Raises:
        UserError: the file is missing, damaged, or another network's.
    """

    id = "retinaface"
    licence = "MIT"

    def __init__(self, path: str | Path, *, threshold: float = 0.7, overlap: float = 0.4, max_side: int = 640) -> None:
        path = Path(path)
        if not path.is_file():
            raise UserError(f"the face detector is missing: no file {path}; {ORIGIN.how_to_get}")
        tensors: dict[str, Any] = {name.removeprefix("module."): value for name, value in read_tensors(path).items()}
        self._net = RetinaFaceNet()
        load_strict(self._net, tensors, ORIGIN, path)
        self._net.eval()
        self.threshold, self.overlap, self.max_side = threshold, overlap, max_side
        self.sha256 = sha256_file(path)

    @torch.inference_mode()
    def detect(self, image_HWC: np.ndarray) -> list[Face]:
        """Return the faces of a uint8 RGB image ``[H, W, 3]``, the most confident first."""
        height, width = image_HWC.shape[:2]
        shrunk = shrink_image(image_HWC, min(1.0, self.max_side / max(height, width)))
        bgr = torch.from_numpy(np.ascontiguousarray(shrunk[..., ::-1])).float() - torch.tensor(MEAN_BGR)
        score_P, boxes_P4, points_P10 = (out[0].double().numpy() for out in self._net(bgr.permute(2, 0, 1)[None]))
        priors_P3 = make_priors(shrunk.shape[0], shrunk.shape[1])
        found = np.flatnonzero(score_P >= self.threshold)
        back = np.array([width / shrunk.shape[1], height / shrunk.shape[0]])
        boxes, points = decode_faces(priors_P3[found], boxes_P4[found], points_P10[found])
        faces = [
            Face(box * np.tile(back, 2), five * back, float(score))
            for box, five, score in zip(boxes, points, score_P[found], strict=True)
        ]
        return suppress_overlaps(sorted(faces, key=lambda face: -face.score), self.overlap)


def make_priors(height: int, width: int) -> np.ndarray:
    """Return the priors float64 ``[P, 3]``: centre x, centre y and side in pixels, level by level, row by row."""
    levels = []
    for stride, sizes in zip(STRIDES, PRIOR_SIZES, strict=True):
        rows, columns = -(-height // stride), -(-width // stride)
        y, x, side = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, sizes, indexing="ij")
        levels.append(np.stack([x * stride, y * stride, side], axis=-1).reshape(-1, 3))
    return np.concatenate(levels)


def decode_faces(priors_P3: np.ndarray, boxes_P4: np.ndarray, points_P10: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes ``[P, 4]`` (x0, y0, x1, y1) and points ``[P, 5, 2]`` in pixels from the network's offsets.

    Centre = prior + offset * 0.1 * side, size = side * exp(0.2 * offset); points as centres.
    """
    centre, side = priors_P3[:, :2], priors_P3[:, 2:]
    middle = centre + boxes_P4[:, :2] * CENTRE_VARIANCE * side
    half = side * np.exp(boxes_P4[:, 2:] * SIZE_VARIANCE) / 2
    points = centre[:, None] + points_P10.reshape(-1, 5, 2) * CENTRE_VARIANCE * side[:, None]
    return np.concatenate([middle - half, middle + half], axis=1), points
