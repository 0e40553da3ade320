"""SyncNet v2: how far lips and audio are apart (AV offset, LSE-C, LSE-D), by the published protocol.

Source: Chung and Zisserman, "Out of time: automated lip sync in the wild" (ACCV 2016 workshops); layers, windows and
distances of joonson/syncnet_python (MIT), ``SyncNetModel.py`` and ``SyncNetInstance.py``; the crop is that of its
``run_pipeline.py``. What the original does to the images in between is left out here: it stores the crops as XVID and
as JPEG before the network sees them. Its boxes are S3FD's; a box of another detector has other margins, so figures
compare among clips measured alike, not with published ones.

Shape legend: T frames at 25 Hz, N samples at 16 kHz, M frames of 10 ms, W = windows of 5 frames (0.2 s), S = shifts,
D = 1024, H height, W width (in image shapes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from df_models.encoders.audio.mfcc import mfcc
from df_models.encoders.weights import Origin, find_file, hash_files, load_strict, locate, read_tensors
from df_models.errors import UserError
from df_models.time import FPS, SAMPLE_RATE

SIZE = 224
WIDTH = 1024
WINDOW_FRAMES = 5
MFCC_A_FRAME = 4
WINDOW_MFCC = WINDOW_FRAMES * MFCC_A_FRAME
MAX_SHIFT = 15
MIN_FRAMES = 2 * MAX_SHIFT + WINDOW_FRAMES
"""In fewer frames the outermost shifts compare most windows with padding (``offset_curve``)."""
BATCH = 20
"""Windows at a time, as in the original's demo; bounds memory, changes nothing."""

CROP_SCALE = 0.4
PADDING = 110
MEDIAN_FRAMES = 13

ORIGIN = Origin(
    name="syncnet_v2",
    licence="MIT (its code's; none is stated for the weights)",
    how_to_get=(
        "fetch syncnet_v2.model (54 MB) as download_model.sh of https://github.com/joonson/syncnet_python does, from "
        "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model"
    ),
)
FILES = ("syncnet_v2.model", "syncnet_v2.safetensors")


class SyncNetTowers(nn.Module):
    """Both towers; names of the parameters are those of the public checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_block(nn.Conv2d(1, 64, 3, padding=1)),
            nn.MaxPool2d(1, 1),
            *_block(nn.Conv2d(64, 192, 3, padding=1)),
            nn.MaxPool2d(3, (1, 2)),
            *_block(nn.Conv2d(192, 384, 3, padding=1)),
            *_block(nn.Conv2d(384, 256, 3, padding=1)),
            *_block(nn.Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, 2),
            *_block(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_block(nn.Conv3d(3, 96, (WINDOW_FRAMES, 7, 7), (1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(256, 512, (1, 6, 6))),
        )

    def audio(self, mfcc_B1CM: Tensor) -> Tensor:
        """Return ``[B, D]`` of windows of 13 x 20 coefficients."""
        return self.netfcaud(self.netcnnaud(mfcc_B1CM).flatten(1))

    def lips(self, bgr_3THW: Tensor) -> Tensor:
        """Return ``[T - 4, D]``, a row for every window of five frames.

        Only the first layer looks across time, so all windows of a stretch are one convolution.
        """
        seen_WD = self.netcnnlip(bgr_3THW[None])[0].flatten(1).T
        return self.netfclip(seen_WD)


def _block(convolution: nn.Conv2d | nn.Conv3d) -> tuple[nn.Module, nn.Module, nn.Module]:
    norm = nn.BatchNorm3d if isinstance(convolution, nn.Conv3d) else nn.BatchNorm2d
    return convolution, norm(convolution.out_channels), nn.ReLU()


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, WIDTH))


@dataclass(frozen=True)
class SyncScores:
    """What the protocol says of a clip.

    Attributes:
        offset: frames of 40 ms, the published "AV offset": positive, the audio comes too early for the lips (it must
            be delayed); negative, too late.
        confidence: median less minimum of the curve: Sync-C, LSE-C.
        distance: minimum of the curve: Sync-D, LSE-D.
    """

    offset: int
    confidence: float
    distance: float


class SyncNet:
    """The network, frozen.

    Args:
        module: with its weights.
        weights: the file that they are of.
    """

    def __init__(self, module: SyncNetTowers, weights: Path) -> None:
        self.id, self.licence = ORIGIN.name, ORIGIN.licence
        self.sha256 = hash_files([weights])
        self.module = module.eval().requires_grad_(False)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the weights to a device or dtype; what comes out stays float32."""
        self.module.to(device=device, dtype=dtype)
        return self

    @torch.no_grad()
    def lips(self, frames_THWC: np.ndarray) -> Tensor:
        """Encode face crops (:func:`crop_faces`), uint8 RGB ``[T, 224, 224, 3]``, to float32 ``[T - 4, D]``.

        Raises:
            UserError: the crops are of another size or kind, or fewer than five.
        """
        if frames_THWC.dtype != np.uint8 or frames_THWC.shape[1:] != (SIZE, SIZE, 3):
            found = f"{frames_THWC.dtype} {list(frames_THWC.shape)}"
            raise UserError(f"syncnet_v2 takes uint8 faces of [T, {SIZE}, {SIZE}, 3], not {found}; crop them first")
        count = len(frames_THWC) - WINDOW_FRAMES + 1
        if count < 1:
            raise UserError(f"syncnet_v2 looks at {WINDOW_FRAMES} frames at a time; {len(frames_THWC)} are too few")
        parameter = next(self.module.parameters())
        rows = []
        for start in range(0, count, BATCH):
            part = frames_THWC[start : min(start + BATCH, count) + WINDOW_FRAMES - 1, :, :, ::-1]
            bgr_3THW = torch.from_numpy(part.transpose(3, 0, 1, 2).copy())
            rows.append(self.module.lips(bgr_3THW.to(parameter)).float().cpu())
        return torch.cat(rows)

    @torch.no_grad()
    def audio(self, wave_N: np.ndarray) -> Tensor:
        """Encode 16 kHz audio in [-1, 1] to float32 ``[W, D]``: a window of 0.2 s from every frame's start.

        Raises:
            UserError: the audio is shorter than a window.
        """
        mfcc_CM = torch.from_numpy(mfcc(to_int16(wave_N)).T.copy()).float()
        if mfcc_CM.shape[1] < WINDOW_MFCC:
            raise UserError(f"syncnet_v2 listens to 0.2 s at a time; {len(wave_N) / SAMPLE_RATE:.3f} s are too short")
        windows_BCM = mfcc_CM.unfold(1, WINDOW_MFCC, MFCC_A_FRAME).transpose(0, 1)
        parameter = next(self.module.parameters())
        parts = windows_BCM.unsqueeze(1).split(BATCH)
        return torch.cat([self.module.audio(part.to(parameter)).float().cpu() for part in parts])

    def compare(self, frames_THWC: np.ndarray, wave_N: np.ndarray) -> SyncScores:
        """Return the scores of face crops and their audio, both from the same moment on.

        The original uses all windows but the last, ``min(T, N // 640) - 5`` of them; so does this.

        Raises:
            UserError: less than six frames or their audio.
        """
        count = min(len(frames_THWC), len(wave_N) * FPS // SAMPLE_RATE) - WINDOW_FRAMES
        if count < 1:
            raise UserError(f"syncnet_v2 needs {WINDOW_FRAMES + 1} frames and their audio at least")
        lips_WD = self.lips(frames_THWC[: count + WINDOW_FRAMES - 1])
        return sync_scores(offset_curve(lips_WD, self.audio(wave_N)[:count]))


def offset_curve(lips_WD: Tensor, audio_WD: Tensor, max_shift: int = MAX_SHIFT) -> Tensor:
    """Return the mean distance of lips and audio at every shift, float32 ``[S]``, S = 2 max_shift + 1.

    Entry s compares the lips of window i with the audio of window ``i + s - max_shift``. Beyond its ends the audio is
    zeros, which count like any other. The distance is the Euclidean one of torch (``pairwise_distance``, which adds
    1e-6 to every difference).

    Raises:
        UserError: there are not equally many windows of both.
    """
    if lips_WD.shape != audio_WD.shape:
        raise UserError(f"lips {list(lips_WD.shape)} and audio {list(audio_WD.shape)} must have equally many windows")
    count = len(lips_WD)
    padded = F.pad(audio_WD, (0, 0, max_shift, max_shift))
    shifts = range(2 * max_shift + 1)
    return torch.stack([F.pairwise_distance(lips_WD, padded[shift : shift + count]).mean() for shift in shifts])


def sync_scores(curve_S: Tensor) -> SyncScores:
    """Return offset, confidence and distance of a curve of :func:`offset_curve`."""
    least, index = curve_S.min(dim=0)
    return SyncScores(len(curve_S) // 2 - int(index), float(curve_S.median() - least), float(least))


def to_int16(wave_N: np.ndarray) -> np.ndarray:
    """Return audio in [-1, 1] as the 16-bit integers that it is in a WAV file."""
    return np.clip(np.rint(np.asarray(wave_N, dtype=np.float64) * 32768), -32768, 32767).astype(np.int16)


def crop_faces(frames_THWC: np.ndarray, boxes_T4: np.ndarray) -> np.ndarray:
    """Cut the face out of every frame by the original's rule: uint8 ``[T, 224, 224, 3]`` in the frames' colours.

    Half the box's longer side is r; the crop reaches from r above the box's middle to 1.8 r below it and 1.4 r to
    either side. Size and middle are medians over 13 frames, beyond the clip's ends zeros, as ``scipy.signal.medfilt``
    has it. Beyond the image all is grey (110). The filter is ``cv2.resize``'s bilinear, which aliases.

    Args:
        frames_THWC: uint8 images.
        boxes_T4: x0, y0, x1, y1 in pixels, one for every frame.
    """
    low, high = boxes_T4[:, :2], boxes_T4[:, 2:]
    half_T = running_median((high - low).max(axis=1) / 2)
    middle_T2 = np.stack([running_median(column) for column in ((low + high) / 2).T], axis=1)
    out = np.empty((len(frames_THWC), SIZE, SIZE, 3), dtype=np.uint8)
    for index, (frame, half, (x, y)) in enumerate(zip(frames_THWC, half_T, middle_T2, strict=True)):
        around = int(half * (1 + 2 * CROP_SCALE))
        rows = int(y + around - half), int(y + around + half * (1 + 2 * CROP_SCALE))
        columns = (int(x + around - half * (1 + CROP_SCALE)), int(x + around + half * (1 + CROP_SCALE)))
        out[index] = _resize(_cut(frame, rows, columns, around))
    return out


def running_median(track_T: np.ndarray) -> np.ndarray:
    """Return the median over 13 entries around each, zeros beyond the ends, float64 ``[T]``."""
    padded = np.pad(np.asarray(track_T, dtype=np.float64), MEDIAN_FRAMES // 2)
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, MEDIAN_FRAMES), axis=1)


def _cut(frame_HWC: np.ndarray, rows: tuple[int, int], columns: tuple[int, int], around: int) -> np.ndarray:
    """Return rows and columns, counted in the frame with ``around`` grey pixels on every side; past those it ends."""
    height, width = frame_HWC.shape[:2]
    top, bottom = max(rows[0], 0) - around, min(rows[1], height + 2 * around) - around
    left, right = max(columns[0], 0) - around, min(columns[1], width + 2 * around) - around
    cut = np.full((max(1, bottom - top), max(1, right - left), 3), PADDING, dtype=np.uint8)
    y0, y1, x0, x1 = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
    if y0 < y1 and x0 < x1:
        cut[y0 - top : y1 - top, x0 - left : x1 - left] = frame_HWC[y0:y1, x0:x1]
    return cut


def _resize(image_HWC: np.ndarray) -> np.ndarray:
    planes = torch.from_numpy(image_HWC).permute(2, 0, 1)[None].float()
    resized = F.interpolate(planes, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).add(0.5).clamp(0, 255).byte().numpy()


def load(name: str, location: str | None) -> SyncNet:
    """Load the network from the file or directory that the user names.

    ``syncnet_v2.model`` is a state dict. A module pickled whole is never loaded: save its ``state_dict()`` by
    ``torch.save`` where the original code runs, and give that file.

    Raises:
        UserError: the weights cannot be found, hold pickled objects, or are not this network's.
    """
    path = find_file(ORIGIN, locate(ORIGIN, location), FILES)
    module = SyncNetTowers()
    load_strict(module, _with_counters(module, read_tensors(path)), ORIGIN, path)
    return SyncNet(module, path)


def _with_counters(module: nn.Module, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Add what files of PyTorch before 0.4.1 lack, how many batches a norm has seen; nothing here depends on it."""
    counters = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    return counters | dict(tensors)
