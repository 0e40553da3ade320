"""The rollout with the real (tiny, random) model."""

from __future__ import annotations

import pytest
import torch

from df_infer.config import RolloutChanges
from df_infer.rollout import Rollout, RolloutConfig, generate_latents, stream_latents
from df_models.errors import UserError

CONFIG = RolloutConfig(steps=2, window=4, sinks=1)


def roll(model, inputs, frames: int = 9, config: RolloutConfig = CONFIG, **others) -> Rollout:
    return generate_latents(
        model, inputs.audio[:, :frames], inputs.reference_latent, inputs.reference_tokens, config=config, **others
    )


def same(a: Rollout, b: Rollout, frames: slice = slice(None)) -> bool:
    return torch.equal(a.video[:, frames], b.video[:, frames]) and torch.equal(
        a.structure[:, frames], b.structure[:, frames]
    )


def test_shapes_and_range(model, inputs) -> None:
    out = roll(model, inputs)
    assert out.video.shape == (2, 9, 16, 2, 2) and out.structure.shape == (2, 9, 4, 70)
    assert out.video.isfinite().all() and out.structure.isfinite().all()


def test_the_seed_decides(model, inputs) -> None:
    first = roll(model, inputs, 3, seed=1)
    torch.manual_seed(99)
    assert same(first, roll(model, inputs, 3, seed=1))
    assert not same(first, roll(model, inputs, 3, seed=2), slice(1, None))


def test_a_stream_in_pieces_is_the_whole_clip(model, inputs) -> None:
    chunks = list(
        stream_latents(
            model,
            iter(inputs.audio[:, :9].split([2, 3, 4], dim=1)),
            inputs.reference_latent,
            inputs.reference_tokens,
            config=CONFIG,
        )
    )
    assert [c.frame for c in chunks] == list(range(9))
    joined = Rollout(torch.cat([c.video for c in chunks], 1), torch.cat([c.structure for c in chunks], 1))
    assert same(joined, roll(model, inputs))


def test_audio_beyond_the_lookahead_leaves_a_frame_bit_equal_and_audio_within_it_does_not(model, inputs) -> None:
    before = roll(model, inputs)
    ahead = -(-model.config.audio_future // 4)
    changed = inputs._replace(audio=inputs.audio.clone())
    changed.audio[:, 6:] += 1.0
    after = roll(model, changed)
    assert same(before, after, slice(0, 6 - ahead))
    assert not torch.equal(before.structure[:, 6 - ahead], after.structure[:, 6 - ahead])
    assert not torch.equal(before.video[:, 6 - ahead], after.video[:, 6 - ahead])


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("future", [0, 1, 3, 4])
def test_a_shorter_future_is_heard_to_the_slot(model, inputs, future: int, chunk: int) -> None:
    config = RolloutChanges(audio_future=future, chunk=chunk).applied_to(CONFIG)
    before = roll(model, inputs, config=config)
    for slot, heard in ((future, False), (future - 1, True)):  # of latent frame 5, as frame 4 hears it
        changed = inputs._replace(audio=inputs.audio.clone())
        changed.audio.flatten(1, 2)[:, 20 + slot :] += 1.0
        after = roll(model, changed, config=config)
        assert same(before, after, slice(0, 4))
        assert same(before, after, slice(4, 5)) != heard
    assert same(before, roll(model, inputs, config=config.model_copy(update={"audio_future": None}))) == (future == 4)


@pytest.mark.parametrize(("future", "pieces"), [(None, 2), (4, 2), (1, 2), (0, 1)])
def test_a_live_source_is_waited_for_no_longer_than_it_is_heard(model, inputs, future: int | None, pieces: int) -> None:
    given = []

    def source():
        for piece in inputs.audio.split(1, dim=1):
            given.append(piece)
            yield piece

    config = RolloutChanges(audio_future=future).applied_to(CONFIG)
    next(stream_latents(model, source(), inputs.reference_latent, inputs.reference_tokens, config=config))
    assert len(given) == pieces


def test_more_than_the_model_hears_is_refused(model, inputs) -> None:
    with pytest.raises(UserError, match="hears 4 slots ahead; give 0 to 4, or null"):
        roll(model, inputs, 2, RolloutChanges(audio_future=5).applied_to(CONFIG))


def test_a_longer_clip_begins_as_the_shorter_one(model, inputs) -> None:
    ahead = -(-model.config.audio_future // 4)
    assert same(roll(model, inputs, 9), roll(model, inputs, 17), slice(0, 9 - ahead))


def test_a_sample_does_not_depend_on_its_batch(model, inputs) -> None:
    both = roll(model, inputs, 4)
    second = inputs._replace(**{name: value[1:] for name, value in inputs._asdict().items()})
    alone = roll(model, second, 4, sample_ids=[1])
    torch.testing.assert_close(alone.video, both.video[1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.structure, both.structure[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"window": 2},
        {"sinks": 2},
        {"steps": 3},
        {"structure_steps": 1},
        {"shift": 1.0},
        {"structure_shift": 3.0},
        {"solver": "heun"},
        {"start": "generate"},
        {"struct_start": "noise"},
        {"context_noise": 0.1},
        {"audio_guidance": 1.5},
        {"structure_guidance": 1.5},
        {"chunk": 2},
        {"audio_future": 1},
    ],
)
def test_every_setting_reaches_the_result(model, inputs, change: dict) -> None:
    out = roll(model, inputs, 7, RolloutChanges(**change).applied_to(CONFIG))
    assert out.video.isfinite().all()
    assert not same(roll(model, inputs, 7), out, slice(1, None))


def test_the_window_matters_only_once_it_is_full(model, inputs) -> None:
    wide, narrow = (roll(model, inputs, 7, RolloutChanges(window=w).applied_to(CONFIG)) for w in (6, 4))
    torch.testing.assert_close(wide.video[:, :5], narrow.video[:, :5], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(wide.video[:, 5:], narrow.video[:, 5:], rtol=1e-3, atol=1e-4)


def test_the_first_frame_is_the_reference(model, inputs) -> None:
    assert torch.equal(roll(model, inputs, 2).video[:, 0], inputs.reference_latent)


def test_a_batch_that_does_not_fit_is_an_error(model, inputs) -> None:
    with pytest.raises(UserError, match="3 samples does not fit 2 portraits"):
        roll(model, inputs._replace(audio=torch.zeros(3, 2, 4, 128)))
    with pytest.raises(UserError, match="no audio"):
        roll(model, inputs, 0)
