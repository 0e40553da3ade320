"""Natural blinks: the eyelids that a generation gives to a model that learnt to be given them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from df_infer.config import RolloutConfig
from df_infer.rollout import generate_latents
from df_infer.sampling.blinks import Blinks
from df_infer.sampling.drive import Drive
from df_infer.sampling.noise import FrameNoise
from df_models import DualForce
from df_models.blinks import BLINKS_PER_MINUTE, closing_eyelids
from df_models.errors import UserError
from df_models.structure import (
    EYELIDS,
    FLAME_MOTION_59,
    LIVEPORTRAIT_70,
    MEDIAPIPE_70,
    SYNTHETIC_70,
    StructureLayout,
)
from df_models.time import FPS, from_slots, latent_length, pixel_length

HEAD = ("pitch", "yaw", "roll")
LAYOUT = StructureLayout.of(SYNTHETIC_70, "synthetic")
LIDS = torch.tensor(LAYOUT.entries((EYELIDS,)))


@pytest.fixture
def blinking(told) -> DualForce:
    """The tiny model, which says that it learnt to be given its eyelids and the head's pose."""
    return told(structure_known=True, given_fields=((EYELIDS,), HEAD))


def closed(model, latents: int, per_minute: float = BLINKS_PER_MINUTE, samples: int = 2) -> np.ndarray:
    """Closure of the lids ``[B, P]``."""
    blinks = Blinks(model, per_minute, FrameNoise(3, list(range(samples))))
    return from_slots(blinks.closure(0, latents)[..., None])[..., 0].numpy()


def test_a_minute_has_its_blinks_and_eyes_are_open_between_them(model) -> None:
    minute = closed(model, latent_length(pixel_length(60 * FPS // 4)))
    for closure_P in minute:
        shut = closure_P >= 0.5
        assert abs(int((shut[1:] & ~shut[:-1]).sum()) - BLINKS_PER_MINUTE) <= 1
        assert closure_P.max() > 0.7 and (closure_P == 0).mean() > 0.8
    assert np.abs(minute[0] - minute[1]).max() > 0.5, "each sample blinks at its own times"


@pytest.mark.parametrize("per_minute", [5.0, 17.0, 60.0])
def test_a_blink_does_not_depend_on_the_chunks_that_it_is_made_in(model, per_minute: float) -> None:
    whole = Blinks(model, per_minute, FrameNoise(3, [0, 1])).closure(0, 60)
    pieces = [Blinks(model, per_minute, FrameNoise(3, [0, 1])).closure(frame, 3) for frame in range(0, 60, 3)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=0)


@pytest.mark.parametrize("drive", [None, HEAD])
def test_a_model_that_learnt_it_is_given_its_eyelids_and_no_more(blinking, inputs, drive) -> None:
    track = torch.ones(2, 17, 4, 70)
    given = None if drive is None else Drive(track, drive)
    config = RolloutConfig(steps=1, window=3, blinks=60)
    out = generate_latents(blinking, *inputs, config=config, seed=5, drive=given)
    found = blinking.denormalize_structure(out.structure)
    closure = Blinks(blinking, 60, FrameNoise(5, [0, 1])).closure(0, 17)
    assert closure.max() > 0.5
    wanted = closure[..., None] * torch.from_numpy(closing_eyelids(LAYOUT))
    torch.testing.assert_close(found[..., LIDS], wanted[..., LIDS], rtol=1e-5, atol=1e-5)
    assert drive is None or torch.allclose(found[..., 63:66], track[..., 63:66], atol=1e-5)
    assert (found[..., ~LIDS] - wanted[..., ~LIDS]).abs().max() > 0.1
    without = generate_latents(blinking, *inputs, config=config.model_copy(update={"blinks": 0.0}), seed=5, drive=given)
    assert (blinking.denormalize_structure(without.structure) - found)[..., LIDS].abs().max() > 0.01


@pytest.mark.parametrize(
    ("layout", "down"),
    [(LAYOUT, 0.111), (StructureLayout.of(MEDIAPIPE_70, "mediapipe"), 0.044)],
)
def test_closing_brings_the_lids_of_a_layout_together_and_moves_nothing_else(layout, down: float) -> None:
    closing, names = closing_eyelids(layout), layout.vector.names
    assert closing is not None and not closing[~LIDS.numpy()].any()
    upper, lower = [closing[names.index(f"expression[{entry}]")] for entry in (40, 49)], names.index("expression[55]")
    assert upper == pytest.approx([down, down]) and closing[lower] < 0, "y is down"


@pytest.mark.parametrize(("fields", "encoder"), [(LIVEPORTRAIT_70, "liveportrait"), (FLAME_MOTION_59, "deca")])
def test_what_closes_other_lids_is_not_known(fields, encoder: str) -> None:
    assert closing_eyelids(StructureLayout.of(fields, encoder)) is None
    assert StructureLayout.of(fields, encoder).has(EYELIDS) == (fields is LIVEPORTRAIT_70)


def test_a_motion_that_gives_the_lids_goes_before(blinking, inputs) -> None:
    track = torch.full((2, 17, 4, 70), 0.5)
    for fields in ((), (EYELIDS,)):
        config = RolloutConfig(steps=1, window=3, blinks=60)
        out = generate_latents(blinking, *inputs, config=config, drive=Drive(track, fields))
        lids = blinking.denormalize_structure(out.structure)[..., LIDS]
        torch.testing.assert_close(lids, torch.full_like(lids, 0.5), rtol=1e-5, atol=1e-5)


def test_blinks_that_a_model_cannot_have_are_refused_when_they_are_asked_for(model, blinking, inputs) -> None:
    short = [value[:, :2] if index == 0 else value for index, value in enumerate(inputs)]
    config = RolloutConfig(steps=1, window=3)
    plain = generate_latents(model, *short, config=config)
    off = generate_latents(model, *short, config=config.model_copy(update={"blinks": 0.0}))
    assert torch.equal(plain.structure, off.structure), "by default such a model is left alone"
    other, flame = (
        DualForce(replace(blinking.config, **changes)).eval()
        for changes in (
            {"structure_layout": StructureLayout.of(SYNTHETIC_70, "somebody")},
            {
                "structure_layout": StructureLayout.of(FLAME_MOTION_59, "deca"),
                "structure_dim": 59,
                "given_fields": (("jaw",),),
            },
        )
    )
    for unable, message in (
        (model, r"rollout.blinks=20, but .*\[\[eyelids\]\]"),
        (other, "not known of .*somebody.*--drive-fields eyelids"),
        (flame, "deca's .* has no eyelids among its fields"),
    ):
        with pytest.raises(UserError, match=message):
            generate_latents(unable, *short, config=config.model_copy(update={"blinks": 20.0}))
