"""Crops that begin within their stored clip (`data.start=marked`), as training takes them.

Such a crop's first latent frame covers four pixel frames and was made with a past that the crop lacks, where a clip's
first latent frame covers one pixel frame. So it is shown as any frame of the past (noised, or clean where the history
mode gives a clean past), and never learnt nor taken for an image: no video loss, no clean start, no aligned reference.

Structure, audio and FLAME are vectors of pixel frames and know no such rule. A clip's first latent frame has the one
pixel frame it covers in all four slots, at one place in time (`df_models.time.slot_positions`); so the crop's first
latent frame gets the last of its own four, which makes the crop, but for the video latent, the clip that begins at that
pixel frame. All their losses are right for it then, and hold.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from df_data.reading.batch import Batch


def begun_anew(batch: Batch) -> Batch:
    """The batch with the first slots of crops that begin within their clip as if a clip began there."""
    if bool(batch.anchored.all()):
        return batch
    return replace(
        batch,
        structure=_first_repeated(batch.structure, batch.anchored),
        audio=_first_repeated(batch.audio, batch.anchored),
        flame=None if batch.flame is None else _first_repeated(batch.flame, batch.anchored),
        reference_frame=torch.where(batch.anchored, batch.reference_frame, -1),
    )


def _first_repeated(slots_BTSD: Tensor, anchored_B: Tensor) -> Tensor:
    first_BSD = slots_BTSD[:, 0]
    repeated_BSD = torch.where(anchored_B[:, None, None], first_BSD, first_BSD[:, -1:])
    return torch.cat([repeated_BSD[:, None], slots_BTSD[:, 1:]], dim=1)
