import numpy as np
import pytest
import torch

from df_infer.hearing.speech import audio_pieces, frames_covering
from df_models.encoders import AudioPool
from df_models.encoders.audio.logmel import LogMel
from df_models.errors import UserError
from df_models.time import pool_audio, to_slots


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (640, 1), (641, 5), (640 * 5, 5), (640 * 5 + 1, 9), (640 * 33, 33)]
)
def test_frames_cover_the_audio(samples: int, frames: int) -> None:
    assert frames_covering(np.zeros(samples, np.float32)) == frames


def test_no_audio_is_an_error() -> None:
    with pytest.raises(UserError, match="non-empty"):
        frames_covering(np.zeros(0, np.float32))


class Levelled(LogMel):
    """An encoder whose features depend on the whole recording."""

    lookahead_s = None

    def encode(self, wave_N: np.ndarray, num_pixel_frames: int) -> torch.Tensor:
        return LogMel().encode(wave_N / wave_N.std(), num_pixel_frames)


@pytest.mark.parametrize("pool", ["mean", "concat"])
@pytest.mark.parametrize("kind", [LogMel, Levelled])
@pytest.mark.parametrize("frames", [1, 5, 41, 101, 129])
def test_pieces_join_without_a_seam(frames: int, kind: type[LogMel], pool: AudioPool) -> None:
    wave = np.random.default_rng(0).normal(size=640 * 100).astype(np.float32) * np.linspace(0.1, 1, 64_000)
    wave = wave[: 640 * frames]
    encoder = kind()
    whole = to_slots(pool_audio(encoder.encode(wave, frames), pool))
    pieces = list(audio_pieces(encoder, wave, frames, pool, piece=40))
    torch.testing.assert_close(torch.cat(pieces, dim=1)[0], whole, rtol=0, atol=1e-5)
    assert max(piece.shape[1] for piece in pieces) <= 11
