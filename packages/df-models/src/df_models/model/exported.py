"""One denoising step, with what it reads of its cache, as a program of ``torch.export``: no Python, no model code.

The program is a function of named tensors, of the same sizes for every chunk of a generation: :func:`step_arguments`
makes them of a chunk, and plans, rotates the keys of the window and hears, which stay Python's. The cache's rings go
in; the chunk's keys and values come out of a program that writes, to be stored. The same program becomes a compiled
library (AOTInductor) or an ONNX file, which take the same tensors under the same names.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from df_models.errors import UserError
from df_models.files import atomic_path
from df_models.model.audio import AudioWindows, HeardAudio
from df_models.model.cache import KVCache
from df_models.model.dualforce import DualForce, Velocity
from df_models.model.inputs import Inputs, checked_inputs
from df_models.model.plan import plan_chunk
from df_models.model.sequence import SameFrame

for _kind in (HeardAudio, AudioWindows, SameFrame):
    torch.export.register_dataclass(_kind)

ONNX_LIMIT = 1536 << 20
"""Bytes of weights from which torch puts them into a second file; a file of protocol buffers ends at 2 GiB."""


class _Step(nn.Module):
    """A model's chunk as a function of the leaves of its arguments, by name."""

    def __init__(self, model: DualForce, names: Iterable[str], spec: Any, write: bool) -> None:
        super().__init__()
        self.model, self.names, self.spec, self.write = model, tuple(names), spec, write

    def forward(self, **leaves: Tensor | None) -> tuple[Tensor, ...]:
        inputs, heard, view = pytree.tree_unflatten([leaves[name] for name in self.names], self.spec)
        velocity, held = self.model._chunk(inputs, heard, view, None, self.write)
        return (*velocity, *(leaf for leaf in pytree.tree_leaves(held) if isinstance(leaf, Tensor)))


def step_arguments(
    model: DualForce, inputs: Inputs, cache: KVCache, *, frame: int, heard: HeardAudio
) -> dict[str, Tensor | None]:
    """Return what the exported program takes for a chunk, by name: ``program.module()(**step_arguments(...))``.

    The streams, audio and noise levels are called as those of :meth:`DualForce.step`; what is heard begins with
    ``heard_``, what is planned and read of the cache with ``view_``.

    Args:
        inputs: streams, audio and noise levels, as :meth:`DualForce.step` takes them one by one.
        cache, frame: as in :meth:`DualForce.step`.
        heard: what :meth:`DualForce.hear` returned, the same for every step of the chunk.

    Raises:
        UserError: as :meth:`DualForce.step`.
    """
    return _flat(model, inputs, cache, frame, heard)[0]


def export_step(
    model: DualForce, inputs: Inputs, cache: KVCache, *, frame: int, heard: HeardAudio, write: bool = False
) -> torch.export.ExportedProgram:
    """Export the step for chunks of these sizes, with the model's weights in it; arguments as :func:`step_arguments`.

    Its results are the velocities of video and structure and, with ``write``, the chunk's keys and values: of each ring
    in the order of :class:`df_models.model.cache.Held`, in each layer first keys, then values.

    Raises:
        UserError: as :meth:`DualForce.step`; a model in training mode.
    """
    if model.training:
        raise UserError("a model in training mode is not exported; call model.eval() first")
    leaves, spec = _flat(model, inputs, cache, frame, heard)
    with torch.no_grad(), _frozen(model.parameters()):
        return torch.export.export(_Step(model, leaves, spec, write), (), leaves, strict=False)


def package_step(program: torch.export.ExportedProgram, path: str | os.PathLike[str]) -> None:
    """Compile an exported step for the device it was exported on into an AOTInductor package ``*.pt2``.

    ``torch._inductor.aoti_load_package(path)`` returns a function of what :func:`step_arguments` returns, by name; C++
    loads it without Python (`torch::inductor::AOTIModelPackageLoader`), and gives it in the same order. Takes a minute
    or more, and a C++ compiler on a CPU.

    Raises:
        UserError: the name does not end in ``.pt2``, or the directory cannot be written.
    """
    with atomic_path(_named(path, ".pt2")) as temporary:
        torch._inductor.aoti_compile_and_package(program, package_path=str(temporary))


def onnx_step(program: torch.export.ExportedProgram, path: str | os.PathLike[str]) -> None:
    """Write an exported step as ONNX, with its weights in the file, of which there may be :data:`ONNX_LIMIT` bytes.

    Its inputs have the names of :func:`step_arguments`, without those that are None there or that nothing is made of.
    Its outputs are ``velocity_video`` and ``velocity_structure``, then ``held_0``, ``held_1``, ... of a program that
    writes. Needs ``onnxscript`` (extra ``df-models[onnx]``).

    Raises:
        UserError: the name does not end in ``.onnx``, the directory cannot be written, `onnxscript` is missing, or the
            weights are too many.
    """
    final = _named(path, ".onnx")
    if importlib.util.find_spec("onnxscript") is None:
        raise UserError('an ONNX file needs onnxscript; install it with: pip install "df-models[onnx]"')
    weights = sum(each.nbytes for each in program.state_dict.values())
    if weights > ONNX_LIMIT:
        raise UserError(
            f"the model has {weights / 2**30:.1f} GiB of weights, of which one ONNX file holds "
            f"{ONNX_LIMIT / 2**30:.1f}; take package_step"
        )
    with _frozen(program.state_dict.values()):  # attention with a bias that is trained would be taken apart
        written = torch.onnx.export(program, (), dynamo=True, verbose=False, output_names=_results(program))
    assert written is not None, "with dynamo it returns a program"
    with atomic_path(final) as temporary:
        written.save(str(temporary))


def _results(program: torch.export.ExportedProgram) -> list[str]:
    held = len(program.graph_signature.user_outputs) - len(Velocity._fields)
    return [*(f"velocity_{name}" for name in Velocity._fields), *(f"held_{index}" for index in range(held))]


@contextlib.contextmanager
def _frozen(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Let parameters need no gradients meanwhile."""
    trained = [each for each in parameters if each.requires_grad]
    try:
        for each in trained:
            each.requires_grad_(False)
        yield
    finally:
        for each in trained:
            each.requires_grad_(True)


def _named(path: str | os.PathLike[str], suffix: str) -> Path:
    if Path(path).suffix != suffix:
        raise UserError(f"{path} must end in {suffix}")
    return Path(path)


def _flat(
    model: DualForce, inputs: Inputs, cache: KVCache, frame: int, heard: HeardAudio
) -> tuple[dict[str, Tensor | None], Any]:
    inputs = checked_inputs(model.config, *inputs)
    chunk = inputs.structure.shape[1]
    cache.plan = None  # its rotated keys are made anew
    plan = plan_chunk(model._geometry(inputs.video), cache, (frame, frame + chunk), masked=True)
    leaves, spec = pytree.tree_flatten_with_path((inputs, heard, plan.view))
    return {_name(path): leaf for path, leaf in leaves}, spec


def _name(path: Sequence[Any]) -> str:
    """The name of a leaf: the fields, without their shape suffixes, and places that lead to it, after its argument.

    torch.export makes names lower case.
    """
    argument, *steps = (re.sub(r"\W+|_[A-Z0-9]+$", "", str(key)) for key in path)
    return "_".join([*([], ["heard"], ["view"])[int(argument)], *steps])
