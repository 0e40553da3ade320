"""An audio encoder of my own: the loudness of each half pixel frame, and nothing later.

    uv run python examples/own_encoder.py data.root=data/loudness run_dir=runs/loudness

Makes the quickstart's corpus with it and trains on that; the model takes width and pooling from the dataset. What
follows the script's name is df-train's: settings, --fresh, --check. docs/how-to/encoder.md says what an encoder gives.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch

from df_models.encoders.audio.framing import HOP
from df_models.encoders.registry import EncoderEntry, register
from df_models.encoders.weights import refuse_location
from df_models.time import samples_for

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "train" / "quickstart.yaml"


class Loudness:
    """Root mean square of each 20 ms, in decibels over -60."""

    id, licence, dim, pool, lookahead_s, window = "loudness", "Apache-2.0", 1, "concat", 0.0, None
    sha256 = hashlib.sha256(b"loudness: rms of 320 samples, dB over -60").hexdigest()

    def encode(self, wave_N: np.ndarray, num_pixel_frames: int) -> torch.Tensor:
        return self.encode_span(wave_N, num_pixel_frames, 0, num_pixel_frames)

    def encode_span(self, wave_N: np.ndarray, num_pixel_frames: int, first: int, last: int) -> torch.Tensor:
        heard_N = np.zeros(samples_for(last - first), dtype=np.float32)
        given_N = wave_N[samples_for(first) : samples_for(min(last, num_pixel_frames))]
        heard_N[: len(given_N)] = given_N
        rms_F1 = torch.from_numpy(heard_N).unflatten(0, (-1, HOP)).square().mean(dim=1, keepdim=True).sqrt()
        return 20 * rms_F1.clamp_min(1e-3).log10() + 60

    def to(self, device=None, dtype=None):
        return self


def load(name: str, location: str | None) -> Loudness:
    refuse_location(name, location)
    return Loudness()


# The processes that make the corpus import this module too, so they know the encoder.
register(EncoderEntry("audio", "loudness", __name__, embedded=True, pool="concat"))


if __name__ == "__main__":
    from df_train.cli import main

    raise SystemExit(main(["--config", str(CONFIG), "data.synth.audio_encoder=loudness", *sys.argv[1:]]))
