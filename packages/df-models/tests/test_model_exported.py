"""The step as a program of torch.export: it does what the model does, at every frame, after being saved and loaded."""

from __future__ import annotations

import io

import pytest
import torch

from df_models import UserError
from df_models.model.exported import export_step, step_arguments
from df_models.model.inputs import Inputs


def test_an_exported_step_is_the_models_at_every_frame(build, make_clip):
    """Frame 0 sees no past, at 4 the window has moved on: one program serves both."""
    small = {"num_layers": 1, "structure_layers": 1, "fusion_depth": 1, "bridge_mask": "causal"}
    model = build(**small)
    clip = make_clip(model, 5, batch=1, size=(4, 4))
    cache = model.new_cache(
        1, 4, 4, 3, 1, reference_latent=clip["reference_latent"], reference_tokens=clip["reference_tokens"]
    )
    program = None
    for frame in range(5):
        inputs = Inputs(*(clip[name][:, frame : frame + 1] for name in Inputs._fields))
        heard = model.hear(inputs.audio, cache, frame=frame, count=1)
        if program is None:
            with io.BytesIO() as file:
                torch.export.save(export_step(model, inputs, cache, frame=frame, heard=heard, write=True), file)
                file.seek(0)
                program = torch.export.load(file).module()
        video, structure, *held = program(*step_arguments(model, inputs, cache, frame=frame, heard=heard))
        wanted = model.step(*inputs, cache, frame=frame, write=True, heard=heard)
        torch.testing.assert_close(video, wanted.video, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(structure, wanted.structure, rtol=1e-5, atol=1e-5)
        place = cache.stored_frames().index(frame)
        stored = [x[layer][:, place] for ring in cache.rings for layer in range(1) for x in (ring.keys, ring.values)]
        for one, other in zip(held, stored, strict=True):
            torch.testing.assert_close(one[:, 0], other, rtol=1e-5, atol=1e-5)


def test_a_model_in_training_mode_is_not_exported(build, make_clip):
    model = build().train()
    clip = make_clip(model, 1, batch=1, size=(4, 4))
    with pytest.raises(UserError, match="eval"):
        export_step(
            model, Inputs(*(clip[name] for name in Inputs._fields)), model.new_cache(1, 4, 4, 3, 1), frame=0, heard=None
        )
