"""DECA's and EMOCA's encoders: a face crop to FLAME parameters. Their weights are licensed; the user brings them.

Shape legend: B batch, P = 236 parameters of DECA's coarse encoder, E = parameters of EMOCA's expression encoder.

DECA: a ResNet-50 and two linear layers give 236 parameters; texture and light are left out here.

EMOCA keeps DECA's encoder frozen and adds a second one for the expression, with a ResNet-50 of its own that started
as a copy of DECA's. In the published EMOCAs it gives the 50 expression parameters and nothing else, so the jaw is
DECA's. EMOCA's code can also train it to give 3 more (the jaw, in its public configurations) or 6 more (the whole
pose). All three are read: the width of the last layer tells which it is.

``deca_model.tar`` is a saved dict of state dicts, of which ``E_flame`` is used. An EMOCA checkpoint is Lightning's: its
``state_dict`` has ``deca.E_flame.*`` and ``deca.E_expression.*``, but its trainer's objects lie beside it, and these
are never unpickled here. Two lines take the tensors out, where EMOCA itself runs (loading runs code that the file
names; ``save_file`` is safetensors.torch's)::

    s = torch.load("EMOCA.ckpt", map_location="cpu", weights_only=False)["state_dict"]
    save_file({k: v.clone() for k, v in s.items() if k.startswith("deca.E_")}, "emoca.safetensors")

The result is named ``emoca:emoca.safetensors``. For DECA, ``["E_flame"]`` takes the place of ``["state_dict"]``, and
there is no condition.

Sources: yfeng95/DECA (formerly YadiraF/DECA), ``decalib/models/encoders.py``, ``decalib/utils/config.py`` (widths and
their order), ``decalib/deca.py``, ``decalib/datasets/datasets.py`` (crop); radekd91/emoca,
``gdl/models/DecaEncoder.py``, ``gdl/models/DECA.py`` (``ExpDECA``), ``gdl_apps/EMOCA/emoca_conf/model/settings``, and
issues 14 and 25, where its author says what the published EMOCA predicts.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from df_models.encoders.face.frozen_face import FrozenFace
from df_models.encoders.face.resnet import FEATURES, ResNet50
from df_models.encoders.registry import origin_of
from df_models.encoders.weights import find_file, load_strict, locate, read_tensors
from df_models.errors import UserError
from df_models.structure import FLAME_159, VectorLayout

DECA_236 = VectorLayout(
    "deca236", (("shape", 100), ("texture", 50), ("expression", 50), ("pose", 6), ("camera", 3), ("light", 27))
)
"""What DECA's coarse encoder gives; ``pose`` is axis-angle in radians: global rotation 3, then jaw 3."""

HIDDEN = 1024
EXPRESSION = 50
EXPRESSION_WIDTHS = (EXPRESSION, EXPRESSION + 3, EXPRESSION + 6)

FILES = {"deca": ("deca_model.tar", "deca.safetensors"), "emoca": ("emoca.safetensors", "EMOCA_v2_lr_mse_20.ckpt")}


class FlameEncoder(FrozenFace):
    """DECA or EMOCA, frozen: see :class:`df_models.encoders.base.FaceEncoder` for the protocol.

    The crop is DECA's for a detector's box (``bbox2point``, type ``bbox``): side 1.25 times the box, centre moved down
    by 0.12 of the box, which is 0.096 of the crop. DECA's box is a square with the mean of the detector's sides, and
    df-data makes it so. For the box around 68 landmarks, which has no forehead, DECA takes 1.25 * 1.1 and no shift.
    """

    layout: VectorLayout = FLAME_159
    size = 224
    crop_scale = 1.25
    crop_offset_y = 0.12 / 1.25

    @torch.no_grad()
    def encode(self, faces_BCHW: Tensor) -> Tensor:
        """Encode crops ``[B, 3, 224, 224]`` in [0, 1] to ``[B, 159]``, float32.

        Raises:
            UserError: the crops are of another size or kind.
        """
        faces_BCHW = self._prepare(faces_BCHW)
        outputs = {part: encoder(faces_BCHW).float() for part, encoder in self.module.named_children()}
        return flame_parameters(outputs["E_flame"], outputs.get("E_expression"))


class ParameterEncoder(nn.Module):
    """ResNet-50 and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = ResNet50()
        self.layers = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width))

    def forward(self, faces_BCHW: Tensor) -> Tensor:
        """Return ``[B, width]``."""
        return self.layers(self.encoder(faces_BCHW))


def flame_parameters(coarse_BP: Tensor, expression_BE: Tensor | None = None) -> Tensor:
    """Return ``[B, 159]`` of what DECA's encoder gives ``[B, 236]`` and EMOCA's, if there is one, ``[B, 50|53|56]``.

    EMOCA's replaces the expression and, by what it gives beyond 50, the end of the pose: the jaw, or all of it.
    """
    fields = {name: coarse_BP[:, DECA_236.slice(name)] for name, _ in FLAME_159.fields}
    if expression_BE is not None:
        pose_BE = expression_BE[:, EXPRESSION:]
        fields["expression"] = expression_BE[:, :EXPRESSION]
        fields["pose"] = torch.cat([fields["pose"][:, : 6 - pose_BE.shape[1]], pose_BE], dim=1)
    return torch.cat([fields[name] for name, _ in FLAME_159.fields], dim=1)


def load(name: str, location: str | None) -> FlameEncoder:
    """Load ``deca`` or ``emoca`` from the file or directory that the user names.

    Raises:
        UserError: the weights cannot be found, hold pickled objects, or are not those of this encoder.
    """
    origin = origin_of(name)
    path = find_file(origin, locate(origin, location), FILES[name])
    loaded = _read(path)
    tensors = _deca_tensors(loaded) if name == "deca" else _emoca_tensors(loaded, path)
    module = nn.ModuleDict({"E_flame": ParameterEncoder(DECA_236.dim)})
    if name == "emoca":
        module["E_expression"] = ParameterEncoder(_expression_width(tensors, path))
    load_strict(module, tensors, origin, path)
    return FlameEncoder(module, origin, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_tensors(path)
    except UserError as error:
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise UserError(f"{error} (help('df_models.encoders.face.deca') shows the two lines for it)") from error
        raise


def _deca_tensors(loaded: Mapping[str, Any]) -> dict[str, Any]:
    return {f"E_flame.{name}": tensor for name, tensor in _inner(loaded, "E_flame").items()}


def _emoca_tensors(loaded: Mapping[str, Any], path: Path) -> dict[str, Any]:
    named = {str(name).removeprefix("deca."): tensor for name, tensor in _inner(loaded, "state_dict").items()}
    if any(name.startswith("E_mica.") for name in named):
        raise UserError(f"{path} is an EMICA, whose shape comes from MICA (deca.E_mica.*); give an EMOCA instead")
    if any(name.startswith("E_expression.resnet.") for name in named):
        raise UserError(
            f"{path} is an EMOCA whose expression encoder shares DECA's ResNet (expression_backbone: deca_parallel); "
            f"give one with a ResNet of its own (deca_clone), as the published ones have"
        )
    return {name: tensor for name, tensor in named.items() if name.startswith(("E_flame.", "E_expression."))}


def _inner(loaded: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = loaded.get(key)
    return inner if isinstance(inner, Mapping) else loaded


def _expression_width(tensors: Mapping[str, Any], path: Path) -> int:
    bias = tensors.get("E_expression.layers.2.bias")
    if not isinstance(bias, Tensor):
        return EXPRESSION
    if bias.numel() not in EXPRESSION_WIDTHS:
        raise UserError(
            f"{path} has an expression encoder of {bias.numel()} outputs; known are 50 (expression), 53 (and jaw) and "
            f"56 (and whole pose)"
        )
    return bias.numel()
