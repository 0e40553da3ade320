"""Guidance of the video on its own frame's structure."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from df_infer.config import RolloutConfig
from df_infer.rollout import generate_latents
from df_infer.run_dir import Trained
from df_infer.sampling.drive import Drive
from df_infer.sampling.guidance import check_guidance
from df_infer.sampling.noise import FrameNoise
from df_models.errors import UserError

CONFIG = RolloutConfig(steps=2, start="generate", context_noise=0.3, structure_guidance=3.0)
AUDIO, REFERENCE = torch.zeros(2, 3, 4, 128), torch.zeros(2, 16, 2, 2)


def test_its_copy_of_the_batch_sees_noise_for_structure_but_writes_what_the_other_writes(spy) -> None:
    generate_latents(spy, AUDIO, REFERENCE, config=CONFIG, seed=7)
    for call in spy.calls:
        (own, unknown), (sigma, unknown_sigma) = call.structure.chunk(2), call.sigma_structure.chunk(2)
        assert torch.equal(*call.sigma_video.chunk(2))
        if call.write:
            assert torch.equal(own, unknown) and torch.equal(sigma, unknown_sigma)
        else:
            noise = FrameNoise(7, [0, 1]).draw(call.frame, 1, "unknown_structure", (4, 6))
            assert torch.equal(unknown, noise) and bool((unknown_sigma == 1).all())
            assert not torch.equal(own, unknown)


def test_given_fields_are_not_given_there_while_it_denoises(spy) -> None:
    generate_latents(spy, AUDIO, REFERENCE, config=CONFIG, drive=Drive(torch.zeros(2, 3, 4, 6), ("a",)))
    for call in spy.calls:
        known, without = call.known.chunk(2)
        assert known[..., :2].all() and not known[..., 2:].any()
        assert torch.equal(without, known) if call.write else not without.any()


def test_video_is_guided_and_structure_is_not(model, inputs) -> None:
    """A linear answer of one step: v without structure is that of a guidance of 0, and 2 v - v_without that of 2."""

    def made(scale: float):
        config = RolloutConfig(steps=1, start="generate", structure_guidance=scale)
        return generate_latents(model, inputs.audio[:, :1], *inputs[1:], config=config)

    plain, without, guided = made(1.0), made(0.0), made(2.0)
    torch.testing.assert_close(guided.video, 2 * plain.video - without.video, rtol=1e-4, atol=1e-4)
    assert (plain.video - without.video).abs().max() > 1e-4
    torch.testing.assert_close(guided.structure, plain.structure, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": "video"}, "has no structure that its video reads"),
        ({"bridge_direction": "none"}, "has no structure that its video reads"),
        ({"structure_given": "always"}, "was always given its structure clean"),
    ],
)
def test_a_model_that_cannot_be_guided_is_refused(model, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=f"rollout.structure_guidance is given, but the model {message}"):
        check_guidance(replace(model.config, **changes), CONFIG)


@pytest.mark.parametrize(
    ("trained", "limit", "message"),
    [
        (Trained(), 0.7, None),
        (Trained(structure_tail=0.1), 0.7, None),
        (Trained(structure_tail=0.0), 0.7, "learnt no structure noisier than sigma_structure_max=0.7"),
        (Trained(structure_tail=0.0), 1.0, None),
        (Trained(distilled=True, structure_tail=0.1), 1.0, "is a distilled student"),
    ],
)
def test_what_training_did_not_show_is_refused_where_the_run_tells(model, trained, limit, message) -> None:
    config = replace(model.config, sigma_structure_max=limit)
    with nullcontext() if message is None else pytest.raises(UserError, match=message):
        check_guidance(config, CONFIG, trained)


@pytest.mark.parametrize("name", ["audio_guidance", "text_guidance", "structure_guidance"])
def test_a_scale_beyond_all_use_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="less than or equal to 20"):
        RolloutConfig(**{name: 1e9})  # pyright: ignore[reportArgumentType]
