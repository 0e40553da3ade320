"""What the image encoders share: any image, resized and normalised as its checkpoint asks, to tokens.

Shape legend: B batch, H, W pixels, S the encoder's own image size, K tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from df_models.encoders.pretrained import FrozenPretrained, read_setting
from df_models.encoders.weights import Origin
from df_models.errors import UserError


class ImageEncoder(FrozenPretrained):
    """A frozen vision transformer: see :class:`df_models.encoders.base.ReferenceEncoder` for the protocol.

    The whole image is squeezed to S x S by antialiased bicubic interpolation, clipped to [0, 1], and brought to the
    checkpoint's own mean and deviation. The checkpoint's processors would crop the middle of an image that is not
    square; here nothing is cut off.

    Attributes:
        size: S.
        num_tokens: one for the image and one for each patch, in raster order.
    """

    def __init__(self, module: Any, origin: Origin, sha256: str, *, size: int, preprocessor: Path) -> None:
        super().__init__(module, origin, sha256)
        self.size = size
        self.dim = int(module.config.hidden_size)
        self.num_tokens = 1 + (size // int(module.config.patch_size)) ** 2
        self._mean, self._std = read_statistics(preprocessor)

    @torch.no_grad()
    def encode(self, image_BCHW: Tensor, latent_BChw: Tensor) -> Tensor:
        """Encode images ``[B, 3, H, W]`` in [0, 1] of any size to ``[B, num_tokens, dim]``, float32.

        The latents are not looked at.

        Raises:
            UserError: the images are no batch of RGB.
        """
        return self.module(self._cast(self.pixels(image_BCHW))).last_hidden_state.float()

    def pixels(self, image_BCHW: Tensor) -> Tensor:
        """Return what the network sees, ``[B, 3, S, S]``, float32, on its device."""
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3:
            raise UserError(f"{self.id} takes images [B, 3, H, W], not {list(image_BCHW.shape)}")
        image = image_BCHW.to(self.device, torch.float32)
        image = F.interpolate(image, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return (image - self._mean.to(self.device)) / self._std.to(self.device)


def read_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel, ``[3, 1, 1]``, as a ``preprocessor_config.json`` states them.

    Raises:
        UserError: it states none, or not three numbers each.
    """
    if not read_setting(path, "do_normalize"):
        return torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    try:
        mean, std = (torch.tensor(read_setting(path, f"image_{name}")).view(3, 1, 1) for name in ("mean", "std"))
    except (RuntimeError, TypeError) as error:
        raise UserError(f"image_mean and image_std in {path} must be three numbers each; fetch it again") from error
    return mean, std
