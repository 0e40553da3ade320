"""The step as a program of torch.export, as ONNX, as AOTInductor's: each does what the model does, at every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime
import pytest
import torch

from df_models import UserError
from df_models.model import exported
from df_models.model.exported import export_step, onnx_step, package_step, step_arguments
from df_models.model.inputs import Inputs

Run = Callable[..., Sequence[torch.Tensor]]


def saved(program: torch.export.ExportedProgram, folder: Path) -> Run:
    torch.export.save(program, folder / "step.pt2")
    return torch.export.load(folder / "step.pt2").module()


def packaged(program: torch.export.ExportedProgram, folder: Path) -> Run:
    package_step(program, folder / "step.pt2")
    return torch._inductor.aoti_load_package(str(folder / "step.pt2"))


def as_onnx(program: torch.export.ExportedProgram, folder: Path) -> Run:
    pytest.importorskip("onnxscript")
    onnx_step(program, folder / "step.onnx")
    assert [path.name for path in folder.iterdir()] == ["step.onnx"], "the weights are in the file"
    session = onnxruntime.InferenceSession(folder / "step.onnx")
    names, results = ([each.name for each in side] for side in (session.get_inputs(), session.get_outputs()))
    assert results[:3] == ["velocity_video", "velocity_structure", "held_0"]
    assert {"video", "structure", "sigma_video", "view_reference_latent"} <= set(names)

    def run(**arguments: torch.Tensor) -> list[torch.Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {name: arguments[name].numpy() for name in names})]

    return run


@pytest.mark.parametrize("form", [saved, as_onnx, pytest.param(packaged, marks=pytest.mark.slow)])
def test_an_exported_step_is_the_models_at_every_frame(build, make_clip, tmp_path: Path, form):
    """Frame 0 sees no past, at 4 the window has moved on: one program serves both."""
    small = {"num_layers": 1, "structure_layers": 1, "fusion_depth": 1, "bridge_mask": "causal"}
    model = build(**small)
    clip = make_clip(model, 5, batch=1, size=(4, 4))
    cache = model.new_cache(
        1, 4, 4, 3, 1, reference_latent=clip["reference_latent"], reference_tokens=clip["reference_tokens"]
    )
    run = None
    for frame in range(5):
        inputs = Inputs(*(clip[name][:, frame : frame + 1] for name in Inputs._fields))
        heard = model.hear(inputs.audio, cache, frame=frame, count=1)
        if run is None:
            run = form(export_step(model, inputs, cache, frame=frame, heard=heard, write=True), tmp_path)
        video, structure, *held = run(**step_arguments(model, inputs, cache, frame=frame, heard=heard))
        wanted = model.step(*inputs, cache, frame=frame, write=True, heard=heard)
        torch.testing.assert_close(video, wanted.video, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(structure, wanted.structure, rtol=1e-5, atol=1e-5)
        place = cache.stored_frames().index(frame)
        stored = [x[layer][:, place] for ring in cache.rings for layer in range(1) for x in (ring.keys, ring.values)]
        for one, other in zip(held, stored, strict=True):
            torch.testing.assert_close(one[:, 0], other, rtol=1e-5, atol=1e-5)


def test_more_weights_than_one_onnx_file_holds_are_refused(monkeypatch, tmp_path: Path):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(exported, "ONNX_LIMIT", 3)
    program = torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),))
    with pytest.raises(UserError, match="package_step"):
        onnx_step(program, tmp_path / "step.onnx")
    assert not any(tmp_path.iterdir())


def test_a_file_with_another_ending_is_refused(tmp_path: Path):
    for write, name in ((package_step, "step.onnx"), (onnx_step, "step.pt2")):
        with pytest.raises(UserError, match="must end in"):
            write(None, tmp_path / name)


def test_a_model_in_training_mode_is_not_exported(build, make_clip):
    model = build().train()
    clip = make_clip(model, 1, batch=1, size=(4, 4))
    with pytest.raises(UserError, match="eval"):
        export_step(
            model, Inputs(*(clip[name] for name in Inputs._fields)), model.new_cache(1, 4, 4, 3, 1), frame=0, heard=None
        )
