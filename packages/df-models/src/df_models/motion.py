"""Motion files: a structure track with what its numbers mean, to be given at generation.

`df-infer generate --structure-out` writes the motion that it made, `df-data motion` that of a stored clip.

An .npz of ``structure`` float32 ``[P, D]`` at 25 frames per second in the layout's own units, ``fps``, ``names``
``[D]``, one per column, and ``layout``, a :class:`df_models.structure.StructureLayout` as JSON; the last two are empty
where the model does not know what its structure is made of.

Shape legend: P pixel frames, D structure entries, T latent frames, S = 4 slots.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.model.config import DualForceConfig
from df_models.structure import StructureLayout, require_same
from df_models.time import FPS, to_slots


@dataclass(frozen=True)
class Motion:
    """A structure track: float32 ``[P, D]`` in the layout's units; ``layout`` None: not known what it means."""

    structure_PD: np.ndarray
    layout: StructureLayout | None


def write_motion(path: Path, motion: Motion) -> None:
    """Write a motion file."""
    layout = motion.layout
    names = () if layout is None else layout.vector.names
    told = "" if layout is None else json.dumps(layout.to_dict())
    arrays = {"structure": motion.structure_PD, "names": np.array(names, dtype=str), "layout": np.array(told)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, fps=np.array(FPS), **arrays)  # pyright: ignore[reportArgumentType]
    atomic_write(path, buffer.getvalue())


def read_motion(path: Path) -> Motion:
    """Read a motion file; nothing in it is unpickled.

    Raises:
        UserError: it is not there, is none, or is at another frame rate.
    """
    if not path.is_file():
        raise UserError(
            f"no such motion file: {path}; give an .npz that `df-infer generate --structure-out` or `df-data motion` "
            "wrote"
        )
    try:
        with np.load(path) as arrays:
            structure, fps, told = arrays["structure"], float(arrays["fps"]), str(arrays["layout"])
        layout = StructureLayout.from_dict(json.loads(told)) if told else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise UserError(f"{path}: {error}") from error
        raise UserError(
            f"{path} is no motion file: it must be an .npz with structure, fps and layout, as `df-infer generate "
            f"--structure-out` writes it ({error})"
        ) from error
    if structure.ndim != 2 or not len(structure) or structure.dtype.kind != "f" or not np.isfinite(structure).all():
        raise UserError(f"{path}: its structure must be finite numbers [frames, entries], not {list(structure.shape)}")
    if fps != FPS:
        raise UserError(f"{path} is at {fps:g} frames per second, structure is at {FPS}; resample it")
    if layout is not None and layout.dim != structure.shape[1]:
        raise UserError(f"{path}: {structure.shape[1]} entries per frame do not fit its layout's {layout.dim}")
    return Motion(structure.astype(np.float32), layout)


def motion_slots(motion: Motion, model: DualForceConfig, num_frames: int, where: str) -> Tensor:
    """Return the track's first frames as a drive takes them, ``[1, T, 4, D]``.

    Args:
        num_frames: pixel frames to generate, 1 + 4 n; what the track has beyond them is left out.
        where: what messages call it.

    Raises:
        UserError: it is shorter, or means something else than the model's structure.
    """
    require_same(model.structure_layout, motion.layout, ("the model", where))
    have, width = motion.structure_PD.shape
    if width != model.structure_dim:
        raise UserError(f"{where} has {width} entries per frame, the model's structure {model.structure_dim}")
    if have < num_frames:
        raise UserError(
            f"{where} has {have} frames, {num_frames} are to be generated; give a longer one, or generate fewer "
            "(--frames)"
        )
    return to_slots(torch.from_numpy(motion.structure_PD[:num_frames]))[None]
