from __future__ import annotations

import numpy as np
import pytest
import torch

from df_infer.hearing.speech import pooled
from df_infer.live.sound import LiveSound
from df_models.encoders.audio.logmel import LogMel
from df_models.encoders.registry import AudioWindow
from df_models.errors import UserError

WAVE = np.random.default_rng(0).normal(scale=0.1, size=640 * 61 + 200).astype(np.float32)


class Windowed(LogMel):
    """An encoder that hears all it is shown: each feature less the mean of its pass, on a grid."""

    window = AudioWindow(8, 5, 3)
    lookahead_s = window.lookahead_s

    def encode_span(self, wave_N: np.ndarray, num_pixel_frames: int, first: int, last: int) -> torch.Tensor:
        length, before, after = self.window
        kept = []
        for frame in range(first, last):
            begin = frame - frame % length
            span = max(0, begin - before), min(begin + length + after, num_pixel_frames)
            whole = LogMel().encode_span(wave_N, num_pixel_frames, *span)
            kept.append((whole - whole.mean())[2 * (frame - span[0]) : 2 * (frame - span[0]) + 2])
        return torch.cat(kept)


@pytest.mark.parametrize("encoder", [LogMel(), Windowed()], ids=["logmel", "windowed"])
def test_features_are_those_of_the_recording_and_come_as_early_as_can_be(encoder: LogMel) -> None:
    frames = 65
    whole = pooled(encoder, WAVE, frames, (0, frames), "concat")
    sound = LiveSound(encoder, "concat", 16_000)
    rng, at, known = np.random.default_rng(1), 0, 0
    while at < len(WAVE):
        step = int(rng.integers(1, 900))
        sound.push(WAVE[at : at + step])
        at = min(len(WAVE), at + step)
        if sound.known > known:
            assert torch.equal(sound.features(known, sound.known), whole[known : sound.known])
            known = sound.known
            sound.let_go(max(0, known - 5))
            assert torch.equal(sound.features(max(0, known - 4), known), whole[max(0, known - 4) : known])
    sound.end()
    assert sound.known == frames and torch.equal(sound.features(known, frames), whole[known:])
    assert sound.bytes < 40 * 640 * 8


@pytest.mark.parametrize("encoder", [LogMel(), Windowed()], ids=["logmel", "windowed"])
def test_features_wait_for_no_more_than_the_stated_lookahead(encoder: LogMel) -> None:
    assert encoder.lookahead_s is not None
    sound, waited = LiveSound(encoder, "mean", 16_000), []
    for index in range(40 * 16):
        before = sound.known
        sound.push(WAVE[40 * index : 40 * index + 40])
        waited += [(index + 1) * 40 / 16_000 - (frame + 1) / 25 for frame in range(before, sound.known)]
    assert 0 <= max(waited) - encoder.lookahead_s <= 40 / 16_000


@pytest.mark.parametrize("encoder", [LogMel(), Windowed()], ids=["logmel", "windowed"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_what_is_cut_off_is_forgotten(encoder: LogMel, rate: int) -> None:
    rng = np.random.default_rng(2)
    first, lost, then = (rng.normal(scale=0.1, size=rate // 25 * count).astype(np.float32) for count in (20, 9, 21))
    cut, straight = (LiveSound(encoder, "concat", rate) for _ in "ab")
    cut.push(np.concatenate([first, lost]))
    cut.cut(20)
    cut.push(then)
    straight.push(np.concatenate([first, then]))
    for sound in (cut, straight):
        sound.end()
    assert cut.known == straight.known == 41
    assert np.array_equal(cut.played(0, 41), straight.played(0, 41))
    seam = 16 if encoder.window else 19  # a resampler begins anew there: what its filter spans differs
    assert torch.equal(cut.features(0, seam), straight.features(0, seam))
    if rate == 16_000:
        assert torch.equal(cut.features(seam, 41), straight.features(seam, 41))
    else:
        assert (cut.features(27, 41) - straight.features(27, 41)).abs().max() < (0.2 if encoder.window else 1e-6)


def test_an_encoder_that_hears_the_whole_recording_cannot_be_live() -> None:
    class Whole(LogMel):
        lookahead_s = None

    with pytest.raises(UserError, match=r"hears the whole recording .* has a window, such as hubert-base@0.16\+4-0.2"):
        LiveSound(Whole(), "mean", 16_000)


def test_without_an_encoder_sound_only_counts_the_time() -> None:
    sound = LiveSound(None, "mean", 8_000)
    sound.push(np.zeros(320 * 5, np.float32))
    assert sound.known == 5 and sound.features(1, 5).shape == (4, 0)
