"""What a window of mouth latents is compared with: its own audio, the same audio shifted, and other clips'.

Negatives of the same clip are shifted by 2 to 10 pixel frames either way, as far as the clip has audio there: 1 frame
(40 ms) is hard to tell apart and within what people accept, and beyond 10 (0.4 s) it is as easy as other clips.

The loss is a multi-way match (InfoNCE): the right audio among all candidates of a window. Chung, Chung & Kang ("Perfect
Match", ICASSP 2019) found it far better than SyncNet's pairwise loss on synchronisation, whose successors with a binary
cross entropy of cosines (Wav2Lip, LatentSync) are known to sit at 0.69, chance, for long; and it needs neither a margin
nor pairs drawn in the right proportion.

Shape legend: B clips, N windows, J starts of audio windows, E embedding, X shifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from df_models.errors import UserError
from df_models.time import SLOTS

NEAREST, FARTHEST = 2, 10
"""Pixel frames that negatives of the same clip are shifted by."""
_FAR_APART = -1e3
"""A cosine that no candidate has and that adds exactly nothing to a sum of exponentials."""
SHIFTS = (*range(-FARTHEST, 1 - NEAREST), *range(NEAREST, FARTHEST + 1))


class Candidates(NamedTuple):
    """Cosines of windows with audio.

    Attributes:
        own_BN: with the audio that belongs to them.
        shifted_BNX: with the same clip's audio at each of the shifts; -inf where the clip has none.
    """

    own_BN: Tensor
    shifted_BNX: Tensor


def compare(video_BNE: Tensor, audio_BJE: Tensor, shifts: Sequence[int] = SHIFTS) -> Candidates:
    """Cosines of a clip's windows with its own audio, in sync and shifted; a positive shift takes later audio."""
    starts_N = own_starts(video_BNE.shape[1], video_BNE.device)
    places_NX = starts_N[:, None] + torch.tensor(shifts, device=starts_N.device)
    fits_NX = (places_NX >= 0) & (places_NX < audio_BJE.shape[1])
    cosine_BNJ = video_BNE @ audio_BJE.mT
    own_BN = cosine_BNJ.gather(2, starts_N.expand(len(video_BNE), -1)[..., None])[..., 0]
    places = places_NX.clamp(0, audio_BJE.shape[1] - 1).expand(len(video_BNE), -1, -1)
    return Candidates(own_BN, cosine_BNJ.gather(2, places).masked_fill(~fits_NX, -torch.inf))


def own_starts(windows: int, device: torch.device) -> Tensor:
    """Where the audio of each window begins, int64 `[N]`: latent frame n + 1 begins at pixel frame 4 n + 1."""
    return SLOTS * torch.arange(windows, device=device) + 1


def with_others(video_BNE: Tensor, audio_BJE: Tensor, keys: Sequence[str]) -> Tensor:
    """Cosines `[B, N, B]` with the same window's audio of every other clip; -inf for a clip's own."""
    audio_BNE = audio_BJE[:, own_starts(video_BNE.shape[1], video_BNE.device)]
    names = {key: index for index, key in enumerate(keys)}
    name_B = torch.tensor([names[key] for key in keys], device=video_BNE.device)
    same_BC = name_B[:, None] == name_B
    return torch.einsum("bne,cne->bnc", video_BNE, audio_BNE).masked_fill(same_BC[:, None], -torch.inf)


def match_loss(own_BN: Tensor, others_BNX: Tensor, scale: Tensor | float) -> Tensor:
    """`-log softmax` of the right candidate `[B, N]`; 0 where it has no rival. Gradients reach every candidate."""
    others_BNX = others_BNX.clamp_min(_FAR_APART)  # with -inf, a gradient to the scale would be inf x 0
    logits = scale * torch.cat([own_BN[..., None], others_BNX], dim=-1)
    return F.softplus(torch.logsumexp(logits[..., 1:], dim=-1) - logits[..., 0])


def check_length(latent_frames: int, window: int) -> None:
    """Refuse clips so short that no window has a shift to be told from.

    Raises:
        UserError: with the length that would do.
    """
    least = window + 1 + -(-NEAREST // SLOTS)
    if latent_frames < least:
        raise UserError(
            f"clips of {latent_frames} latent frames are too short for a lip-sync expert with windows of {window}: at "
            f"least {least} are needed, and about {window + 1 + -(-FARTHEST // SLOTS)} for all shifts"
        )
