"""The lip-sync expert: do these mouth latents and this audio belong together?

Two small convolutional networks map a window of latent frames and the window of audio slots it covers to vectors of
unit length; their cosine is the score, as in SyncNet (Chung & Zisserman 2016) and LatentSync (arXiv 2412.09262), whose
networks see pixels or whole latent images. Here only the mouth region is seen, at any resolution of the latents.

The region is one square per clip, sampled at `grid` x `grid` points. Mouth boxes move and grow with the lips: a box for
each frame would tell the expert what the true lips do, whatever a model drew, so that it could be satisfied without it.

Both networks are convolutions over time without padding, so all windows of a clip, and all shifts of its audio, cost
one pass each. A clip's first latent frame covers one pixel frame instead of four and is left out.

The expert is df-train's alone. df-eval measures with other instruments on purpose: a model that was trained to please
this one must be judged by one that it never met.

Shape legend: B clips, T latent frames, C latent channels, h, w latent cells, G grid points, N = T - W windows of W
latent frames, S = 4 slots, J starts of audio windows, D audio features, E embedding.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from df_models.encoders import AudioPool
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.time import SLOTS

FILES = "config.json", "model.safetensors"
KIND = "df-sync-expert"
_FIRST_SCALE = 1 / 0.07
"""Of the cosines, learnt from here on as in CLIP (Radford et al. 2021)."""
_LARGEST_SCALE = 100.0
"""CLIP's bound, beyond which training is unstable."""


@dataclass(frozen=True)
class ExpertConfig:
    """What an expert is made of and made for; `config.json` of its directory.

    Attributes:
        latent_channels, audio_dim: widths of what it sees and hears (of a slot, pooled).
        window, grid, margin, width, embedding, audio_pool: see `df_train.sync.config.ExpertNetConfig`.
        video_vae, audio_encoder: ids of the frozen models whose latents and features it knows, and their sha256.
    """

    latent_channels: int
    audio_dim: int
    window: int
    grid: int
    margin: float
    width: int
    embedding: int
    audio_pool: AudioPool
    video_vae: str
    video_vae_sha256: str
    audio_encoder: str
    audio_sha256: str


class SyncExpert(nn.Module):
    """Scores windows of mouth latents against windows of audio.

    Attributes:
        audio_mean, audio_std: `[D]`, of the audio features it was trained on; they travel with the weights.
        log_scale: logarithm of the factor of the cosines in the contrastive loss.
    """

    audio_mean: Tensor
    audio_std: Tensor

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.config = config
        width, embedding = config.width, config.embedding
        side = config.grid // 4
        self.look = nn.Sequential(
            nn.Conv2d(config.latent_channels, width, 4, stride=2, padding=1),
            nn.GroupNorm(1, width),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(2 * width * side * side, embedding),
        )
        self.watch = nn.Sequential(
            nn.GELU(), nn.Conv1d(embedding, embedding, config.window), nn.GELU(), nn.Conv1d(embedding, embedding, 1)
        )
        slots = SLOTS * config.window  # of a window; the first convolution takes two neighbours away
        self.hear = nn.Sequential(
            nn.Conv1d(config.audio_dim, 2 * width, 3),
            nn.GELU(),
            nn.Conv1d(2 * width, embedding, slots - 2),
            nn.GELU(),
            nn.Conv1d(embedding, embedding, 1),
        )
        self.register_buffer("audio_mean", torch.zeros(config.audio_dim))
        self.register_buffer("audio_std", torch.ones(config.audio_dim))
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))

    @property
    def scale(self) -> Tensor:
        """The factor of the cosines in the contrastive loss."""
        return self.log_scale.exp().clamp_max(_LARGEST_SCALE)

    def video(self, video_BTChw: Tensor, mouth_BThw: Tensor) -> Tensor:
        """Vectors `[B, N, E]` of unit length: window n covers latent frames n + 1 to n + W.

        Args:
            mouth_BThw: the share of each cell inside the mouth box (`df_data.reading.Batch.mouth_mask`).
        """
        crops = mouth_region(video_BTChw.float(), mouth_BThw, self.config.grid, self.config.margin)[:, 1:]
        seen_BTE = self.look(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])
        return F.normalize(self.watch(seen_BTE.mT).mT, dim=-1)

    def audio(self, audio_BTSD: Tensor) -> Tensor:
        """Vectors `[B, J, E]` of unit length: window j begins at pixel frame j and has 4 W slots.

        The audio that latent frames n + 1 to n + W cover begins at j = 4 n + 1.
        """
        slots_BXD = audio_BTSD.float().flatten(1, 2)[:, SLOTS - 1 :]  # the first frame's slots are one pixel frame
        normal_BXD = (slots_BXD - self.audio_mean) / self.audio_std
        return F.normalize(self.hear(normal_BXD.mT).mT, dim=-1)


def mouth_region(video_BTChw: Tensor, mouth_BThw: Tensor, grid: int, margin: float) -> Tensor:
    """The latents around the mouth `[B, T, C, G, G]`: one square per clip, `margin` times as wide as the mouth.

    Bilinear between cells; where points lie farther apart than cells, several are averaged to one.
    """
    height, width = video_BTChw.shape[-2:]
    centre_B2, side_B = mouth_square(mouth_BThw)
    size_2 = torch.tensor([width, height], device=centre_B2.device, dtype=torch.float32)
    scale_B2, shift_B2 = margin * side_B[:, None] / size_2, 2.0 * centre_B2 / size_2 - 1.0
    theta_B23 = torch.cat([torch.diag_embed(scale_B2), shift_B2[:, :, None]], dim=2)
    finer = max(1, math.ceil(max(height, width) / (2 * grid)))  # the square is at most about half of a face crop
    points = grid * finer
    flat = video_BTChw.flatten(1, 2)
    where = F.affine_grid(theta_B23, [len(flat), 1, points, points], align_corners=False)
    crops = F.grid_sample(flat, where, padding_mode="border", align_corners=False)
    return F.avg_pool2d(crops, finer).unflatten(1, video_BTChw.shape[1:3])


def mouth_square(mouth_BThw: Tensor) -> tuple[Tensor, Tensor]:
    """Centre `[B, 2]` (x, y) and width `[B]` of a clip's mouth, in cells, from the mean of its masks over time.

    A box that is L cells wide spreads its cells' centres with the variance (L^2 - 1) / 12.
    """
    mass_Bhw = mouth_BThw.float().mean(dim=1)
    total_B = mass_Bhw.sum(dim=(1, 2)).clamp_min(1e-6)
    centres, spread_B = [], torch.zeros_like(total_B)
    for axis in (1, 2):  # along a column, then along a row
        profile = mass_Bhw.sum(dim=axis) / total_B[:, None]
        places = torch.arange(profile.shape[1], device=profile.device) + 0.5
        centres.append((profile * places).sum(dim=1))
        if axis == 1:
            spread_B = (profile * (places - centres[0][:, None]).square()).sum(dim=1)
    return torch.stack(centres, dim=1), (12.0 * spread_B + 1.0).sqrt()


# -------------------- on disk


def write_expert(expert: SyncExpert, directory: Path) -> None:
    """Write `config.json` and `model.safetensors`, the weights last."""
    directory.mkdir(parents=True, exist_ok=True)
    atomic_write(directory / FILES[0], json.dumps({"kind": KIND, **asdict(expert.config)}, indent=1) + "\n")
    weights = {name: value.detach().cpu().contiguous() for name, value in expert.state_dict().items()}
    atomic_write(directory / FILES[1], save(weights))


def load_expert(directory: Path) -> tuple[SyncExpert, str]:
    """A frozen expert on the CPU, and the sha256 of its two files.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        config, weights = ((directory / name).read_bytes() for name in FILES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{directory} holds no lip-sync expert ({' and '.join(FILES)}); train one with "
            "`df-train --config configs/train/sync.yaml`, and name its run's expert/ folder"
        ) from error
    try:
        with torch.random.fork_rng(devices=[]):
            expert = SyncExpert(_config_of(json.loads(config)))
        expert.load_state_dict(load(weights))
    except (ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{directory} is no lip-sync expert that this version reads ({reason})") from error
    return expert.eval().requires_grad_(False), hashlib.sha256(config + weights).hexdigest()


def _config_of(tree: dict[str, Any]) -> ExpertConfig:
    if tree.get("kind") != KIND:
        raise ValueError(f"its config.json does not say kind: {KIND}")
    config = ExpertConfig(**{field.name: tree[field.name] for field in fields(ExpertConfig)})
    if config.audio_pool not in get_args(AudioPool):
        raise ValueError(f"audio_pool={config.audio_pool!r}")
    return config
