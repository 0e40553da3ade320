"""A shorter future of the audio: what lies beyond it is as if the recording ended there."""

from __future__ import annotations

import pytest
import torch

from df_models import UserError
from df_models.model.plan import Geometry
from df_models.time import SLOTS

TOLERANCE = 1e-5
FUTURE = 5


@pytest.fixture
def model(build):
    return build(audio_future=FUTURE)


def heard(model, audio, slots, future=None):
    """The audio tokens of latent frame 1, of the first `slots` slots."""
    geometry = Geometry(model.config, (2, 3), torch.device("cpu"))
    windows = geometry.audio((1,), 0, slots, future)
    return model._hear(audio.flatten(1, 2)[:, :slots], windows).tokens_BTSD


@pytest.mark.parametrize("future", range(FUTURE + 1))
@torch.no_grad()
def test_it_is_heard_like_the_end_of_a_recording(model, future):
    audio = torch.randn(2, 4, SLOTS, model.config.audio_dim)
    whole = heard(model, audio, 4 * SLOTS, future=future)
    assert torch.equal(whole, heard(model, audio, 2 * SLOTS + future))
    assert torch.equal(whole, heard(model, audio, 4 * SLOTS)) == (future == FUTURE)


@torch.no_grad()
def test_each_sample_hears_its_own(model, make_clip):
    clip = make_clip(model, 5, batch=3)
    mixed = model(**clip, audio_future=torch.tensor([0, 3, FUTURE]))
    for row, future in enumerate((0, 3, None)):
        alone = model(**clip, audio_future=future)
        assert torch.equal(mixed.video[row], alone.video[row])
        assert torch.equal(mixed.structure[row], alone.structure[row])
    assert not torch.allclose(mixed.video[0], model(**clip).video[0], atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("future", [0, 2, 5, "each"])
@torch.no_grad()
def test_cached_equals_whole_with_a_shorter_future(model, make_clip, difference, chunk, future):
    clip = make_clip(model, 7)
    future = torch.tensor([1, 4]) if future == "each" else future
    wanted = model(**clip, audio_future=future)
    conditions = {name: clip[name] for name in ("reference_latent", "reference_tokens", "reference_frame")}
    cache = model.new_cache(2, *clip["video"].shape[-2:], 7, 0, **conditions)
    for frame in range(0, 7, chunk):
        part = slice(frame, min(frame + chunk, 7))
        streams = [clip[name][:, part] for name in ("video", "structure")]
        sigmas = [clip[name][:, part] for name in ("sigma_video", "sigma_structure")]
        audio = clip["audio"][:, frame:]
        for write in (False, True):  # two denoising steps, told anew
            told = future.clone() if isinstance(future, torch.Tensor) else future
            found = model.step(*streams, audio, *sigmas, cache, frame=frame, write=write, audio_future=told)
        for stream in wanted._fields:
            assert difference(getattr(found, stream), getattr(wanted, stream)[:, part]) < TOLERANCE


@torch.no_grad()
def test_audio_beyond_it_reaches_no_earlier_frame(model, make_clip):
    clip = make_clip(model, 5)
    before = model(**clip, audio_future=2)
    clip["audio"].flatten(1, 2)[:, 4 * SLOTS + 2 :] += 1.0
    for old, new in zip(before, model(**clip, audio_future=2)):
        assert torch.equal(old[:, :4], new[:, :4]) and not torch.equal(old[:, 4], new[:, 4])


def test_mistakes_are_told(model, make_clip):
    clip = make_clip(model, 2)
    with pytest.raises(UserError, match="hears 5 slots ahead; give 0 to 5"):
        model(**clip, audio_future=6)
    with pytest.raises(UserError, match="one number per sample"):
        model(**clip, audio_future=torch.tensor([1, 2, 3]))
