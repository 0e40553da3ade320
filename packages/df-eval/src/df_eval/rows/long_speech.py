"""Speech of any length out of the clips that are measured: each clip's own, then the next one's, and so round.

Nothing of it is held but what every clip has anyway: a frame of it is a frame of a clip.

Shape suffixes: B clips, T latent frames, S = 4 slots, D audio features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from df_eval.clips import EvalClip
from df_eval.rows.generation import audio_slots
from df_infer.pipeline import Pipeline
from df_models.time import latent_length, valid_pixel_length


class LongSpeech:
    """The long speech of every clip.

    Args:
        clips: whose speech it is made of.

    Attributes:
        own: pixel frames at the beginning that are the clip's own; each later stretch has one frame less, since the
            first frame of a clip has a latent frame of its own.
    """

    def __init__(self, clips: Sequence[EvalClip]) -> None:
        self.clips = clips
        self.own = valid_pixel_length(min(clip.length for clip in clips))
        assert self.own > 1

    def place(self, which: int, frame: int) -> tuple[int, int]:
        """The clip, and the pixel frame of it, that is heard at a pixel frame of the speech of clip ``which``."""
        if frame == 0:
            return which, 0
        stretch, at = divmod(frame - 1, self.own - 1)
        return (which + stretch) % len(self.clips), 1 + at

    def signal(self, signals: Sequence[np.ndarray], which: int, start: int, stop: int) -> np.ndarray:
        """A signal of the clips along the speech of clip ``which``: pixel frames ``start`` to ``stop - 1``."""
        places = (self.place(which, frame) for frame in range(start, stop))
        return np.array([signals[clip][frame] for clip, frame in places])

    def pieces(self, pipeline: Pipeline, batch: Sequence[int], frames: int) -> Iterator[Tensor]:
        """The model's audio input ``[B, T, 4, D]`` for ``frames`` pixel frames, a stretch at a time.

        Args:
            batch: the clips, by their indices.
        """
        known: dict[int, Tensor] = {}
        left, stretch = latent_length(frames), 0
        while left > 0:
            rows = []
            for which in batch:
                clip = (which + stretch) % len(self.clips)
                if clip not in known:
                    known[clip] = audio_slots(pipeline, self.clips[clip], self.own)
                rows.append(known[clip][min(stretch, 1) :])
            piece_BTSD = torch.stack(rows)[:, :left]
            yield piece_BTSD
            left -= piece_BTSD.shape[1]
            stretch += 1
