"""Networks that look at whole images or windows of video: TorchScript archives that the field's metrics are defined by.

Every archive says its own range and resizing; what it is given here is stated by each class, because a network that is
fed [0, 1] in place of [0, 255] gives numbers that look like any other.

Shape suffixes: T pixel frames, W windows, F frames of a window, H W height and width, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from df_eval.config import ReadersConfig
from df_eval.metrics import CATALOG, SETS
from df_eval.metrics.sets import WINDOW_FRAMES
from df_models.errors import UserError
from df_models.files import sha256_file

TOGETHER = 8
"""Windows or images that a network sees at once."""
CD_SIZE = 224
PER_FRAME = frozenset({"inception"})
"""Networks whose features are those of each frame alone, one after the other."""


class Archive:
    """A TorchScript archive, frozen, with its hash.

    Args:
        path: of the archive.
        setting: that named it.
        device: to run on.

    Raises:
        UserError: the file is missing or no TorchScript archive.
    """

    def __init__(self, path: Path, setting: str, device: torch.device | str = "cpu") -> None:
        if not path.is_file():
            raise UserError(f"{setting}={path}: there is no such file")
        try:
            self._module = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise UserError(f"{setting}={path} is no TorchScript archive that torch can load") from error
        self.sha256, self._setting, self._device = sha256_file(path), setting, device

    @torch.no_grad()
    def run(self, images: Tensor, **flags: bool) -> Tensor:
        """Return the float32 output ``[N, ...]`` of a batch, a few at a time, on the CPU."""
        try:
            parts = [self._module(part.to(self._device), **flags).float().cpu() for part in images.split(TOGETHER)]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first = str(error).strip().splitlines()[-1]
            raise UserError(f"{self._setting}: the archive is another network than it must be ({first})") from error
        return torch.cat(parts)


def windows(frames_THWC: np.ndarray) -> np.ndarray:
    """The first and the last 16 consecutive frames of a clip: uint8 ``[2, F, H, W, 3]``."""
    return np.stack([frames_THWC[:WINDOW_FRAMES], frames_THWC[-WINDOW_FRAMES:]])


def _channels_first(windows_WFHWC: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(windows_WFHWC)).permute(0, 4, 1, 2, 3).float()


class StyleGanI3D(Archive):
    """I3D as StyleGAN-V calls it: ``[W, 3, F, H, W]`` of 0 to 255, scaled and resized inside; logits ``[W, 400]``."""

    def features(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Return features of the windows, float64 ``[2, D]``."""
        found = self.run(_channels_first(windows(frames_THWC)), rescale=True, resize=True, return_features=True)
        return found.double().numpy()


class CdI3D(Archive):
    """I3D of cd-fvd: ``[W, 3, F, 224, 224]`` in [-1, 1], bilinear (align_corners False); logits averaged over time."""

    def features(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Return features of the windows, float64 ``[2, D]``."""
        videos = _channels_first(windows(frames_THWC))
        frames = videos.transpose(1, 2).flatten(0, 1)
        size = (CD_SIZE, CD_SIZE)
        resized = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        scaled = (resized.unflatten(0, (len(videos), -1)).transpose(1, 2) / 127.5) - 1.0
        found = self.run(scaled.contiguous())
        return (found if found.ndim == 2 else found.flatten(2).mean(dim=2)).double().numpy()


class Inception(Archive):
    """Inception of 2015-12-05 as StyleGAN's metrics call it: uint8 ``[N, 3, H, W]``, resized inside; ``[N, 2048]``."""

    def features(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Return features of every frame, float64 ``[T, D]``."""
        images = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
        return self.run(images, return_features=True).double().numpy()


class Lpips(Archive):
    """VGG-16 with LPIPS's weights as StyleGAN's metrics call it: ``[N, 3, H, W]`` of 0 to 255."""

    def distance(self, frames_THWC: np.ndarray, true_THWC: np.ndarray) -> np.ndarray:
        """Return LPIPS of each frame to its true frame, float64 ``[T]``."""
        each = []
        for start in range(0, len(frames_THWC), TOGETHER):
            part = slice(start, start + TOGETHER)
            images = torch.from_numpy(np.concatenate([frames_THWC[part], true_THWC[part]])).permute(0, 3, 1, 2)
            a, b = self.run(images.float(), resize_images=False, return_lpips=True).double().chunk(2)
            each.append((a - b).square().flatten(1).sum(dim=1).numpy())
        return np.concatenate(each)


class Networks:
    """The networks whose files are given.

    Attributes:
        extractors: by name of the features (:class:`df_eval.metrics.sets.SetSpec`), frames to features ``[n, D]``.
        lpips: compares frames with true frames; None without its file.
        used: names with the hash of what was loaded.
        unavailable: metrics whose file is not given, with the setting that would give it.
    """

    def __init__(self, files: ReadersConfig, device: torch.device | str = "cpu") -> None:
        kinds = {"i3d": StyleGanI3D, "cd_i3d": CdI3D, "inception": Inception}
        given = {name: path for name in (*kinds, "lpips") if (path := getattr(files, name)) is not None}
        self.extractors: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        self.used: dict[str, str] = {}
        for name in kinds.keys() & given.keys():
            archive = kinds[name](given[name].path, f"readers.{name}", device)
            self.extractors[name], self.used[name] = archive.features, archive.sha256
        self.lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
        if "lpips" in given:
            archive = Lpips(given["lpips"].path, "readers.lpips", device)
            self.lpips, self.used["lpips"] = archive.distance, archive.sha256
        lacking = {name: f"no file is given for it (readers.{name}=PATH)" for name in (*kinds, "lpips")}
        needs = {spec.name: spec.needs for spec in (*CATALOG, *SETS)}
        self.unavailable = {
            name: lacking[need]
            for name, given_by in needs.items()
            for need in given_by
            if need in lacking.keys() - given
        }
