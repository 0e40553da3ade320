"""What the rollout asks of the model, seen by a spy that knows the right answer."""

from __future__ import annotations

import pytest
import torch

from df_infer.config import RolloutChanges
from df_infer.rollout import RolloutConfig, generate_latents, stream_latents
from df_infer.sampling.noise import FrameNoise
from df_models.flow import interpolate

REFERENCE = torch.full((2, 16, 2, 2), 0.9)
AUDIO = torch.arange(5.0).view(1, 5, 1, 1).expand(2, 5, 4, 3) + 1
CONFIG = RolloutConfig(steps=4, structure_steps=2, start="generate")


@pytest.mark.parametrize(("solver", "calls"), [("euler", 4), ("heun", 7)])
def test_reaches_the_clean_point_and_writes_each_frame_once(spy, solver: str, calls: int) -> None:
    out = generate_latents(spy, AUDIO, REFERENCE, config=RolloutChanges(solver=solver).applied_to(CONFIG))
    torch.testing.assert_close(out.video, torch.full((2, 5, 16, 2, 2), spy.clean))
    torch.testing.assert_close(out.structure, torch.full((2, 5, 4, 6), spy.clean))
    assert [c.frame for c in spy.calls] == [f for f in range(5) for _ in range(calls + 1)]
    assert [c.write for c in spy.calls] == ([False] * calls + [True]) * 5


def test_structure_leads_and_both_streams_end_clean(spy) -> None:
    generate_latents(spy, AUDIO[:, :1], REFERENCE, config=CONFIG)
    video = [c.sigma_video[0, 0].item() for c in spy.calls]
    structure = [c.sigma_structure[0, 0].item() for c in spy.calls]
    assert video[0] == 1.0 and video == sorted(video, reverse=True) and video[-1] == 0.0 and video[-2] > 0
    assert structure == pytest.approx([0.7, 0.35, 0.0, 0.0, 0.0])


def test_the_write_pass_sees_the_finished_frame_at_the_context_noise(spy) -> None:
    generate_latents(spy, AUDIO[:, :2], REFERENCE, config=RolloutChanges(context_noise=0.02).applied_to(CONFIG))
    write = spy.calls[-1]
    assert write.sigma_video.unique().item() == pytest.approx(0.02)
    assert write.sigma_structure.unique().item() == pytest.approx(0.02)
    off = (write.video - spy.clean).std().item()
    assert 0.01 < off < 0.03


def test_the_reference_is_pinned_as_frame_0(spy) -> None:
    out = generate_latents(spy, AUDIO, REFERENCE, config=RolloutChanges(start="reference", chunk=2).applied_to(CONFIG))
    assert torch.equal(out.video[:, 0], REFERENCE)
    first = [c for c in spy.calls if c.frame == 0]
    assert all(torch.equal(c.video[:, 0], REFERENCE) and not c.sigma_video[:, 0].any() for c in first)
    assert first[0].sigma_video[:, 1].eq(1).all() and first[0].sigma_structure.eq(0.7).all()
    assert spy.cache_arguments["reference_frame"].tolist() == [0, 0]


def test_without_it_no_frame_is_aligned_with_the_reference(spy) -> None:
    generate_latents(spy, AUDIO, REFERENCE, config=CONFIG)
    assert spy.cache_arguments["reference_frame"].tolist() == [-1, -1]


def test_structure_starts_from_the_mean_then_from_the_previous_frame(spy) -> None:
    generate_latents(spy, AUDIO, REFERENCE, config=RolloutChanges(chunk=2).applied_to(CONFIG), seed=3)
    starts = {c.frame: c.structure for c in reversed(spy.calls)}
    noise = FrameNoise(3, [0, 1])
    sigma = torch.full((2, 2), 0.7)
    for frame, guess in ((0, 0.0), (2, spy.clean)):
        drawn = noise.draw(frame, 2, "structure", (4, 6))
        torch.testing.assert_close(starts[frame], interpolate(torch.full_like(drawn, guess), drawn, sigma))


def test_structure_can_start_from_pure_noise(spy) -> None:
    generate_latents(
        spy, AUDIO[:, :1], REFERENCE, config=RolloutChanges(struct_start="noise").applied_to(CONFIG), seed=3
    )
    torch.testing.assert_close(spy.calls[0].structure, FrameNoise(3, [0, 1]).draw(0, 1, "structure", (4, 6)))
    assert spy.calls[0].sigma_structure.eq(1).all()


def test_each_chunk_hears_its_own_audio_and_the_lookahead(spy) -> None:
    generate_latents(spy, AUDIO, REFERENCE, config=RolloutChanges(chunk=2).applied_to(CONFIG))
    heard = {c.frame: c.audio[0, :, 0, 0].tolist() for c in spy.calls}
    assert heard == {0: [1, 2, 3, 4], 2: [3, 4, 5], 4: [5]}


def test_guidance_asks_with_and_without_audio(spy) -> None:
    config = RolloutChanges(audio_guidance=2.0).applied_to(CONFIG)
    out = generate_latents(spy, AUDIO, REFERENCE, config=config)
    assert out.video.shape[0] == 2 and spy.cache_arguments["batch_size"] == 4
    call = spy.calls[0]
    assert torch.equal(call.video[:2], call.video[2:])
    assert call.audio[:2].any() and not call.audio[2:].any()


def test_a_live_source_is_answered_before_it_ends(spy) -> None:
    given = []

    def source():
        for index in range(100):
            given.append(index)
            yield AUDIO[:, :1]

    chunks = stream_latents(spy, source(), REFERENCE, config=CONFIG)
    assert next(chunks).frame == 0
    assert len(given) == 1 + 2


def test_the_training_mode_is_put_back(spy) -> None:
    spy.train()
    generate_latents(spy, AUDIO[:, :1], REFERENCE, config=CONFIG)
    assert spy.training
