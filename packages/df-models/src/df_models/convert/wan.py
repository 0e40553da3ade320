"""Wan's public weights into a video tower, and back.

Two layouts are known: Wan's own names (Wan-Video/Wan2.1, ``wan/modules/model.py``), which are also the tower's, and
diffusers' (``WanTransformer3DModel``; the renaming follows diffusers' ``scripts/convert_wan_to_diffusers.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from df_models.convert.scales import scaled, split_scales
from df_models.errors import UserError, nearest
from df_models.model.video_dit import VideoDiT

Layers = int | Literal["all", "first", "even"] | Sequence[int] | None
Names = Literal["wan", "diffusers"]

WRAPPERS = ("model.diffusion_model.", "diffusion_model.", "module.", "model.")
"""Prefixes that other programs put in front of every name."""

_DIFFUSERS = (
    ("condition_embedder.text_embedder.linear_1.", "text_embedding.0."),
    ("condition_embedder.text_embedder.linear_2.", "text_embedding.2."),
    ("condition_embedder.time_embedder.linear_1.", "time_embedding.0."),
    ("condition_embedder.time_embedder.linear_2.", "time_embedding.2."),
    ("condition_embedder.time_proj.", "time_projection.1."),
    ("proj_out.", "head.head."),
)
_DIFFUSERS_BLOCK = (
    ("attn1.to_q.", "self_attn.q."),
    ("attn1.to_k.", "self_attn.k."),
    ("attn1.to_v.", "self_attn.v."),
    ("attn1.to_out.0.", "self_attn.o."),
    ("attn1.norm_", "self_attn.norm_"),
    ("attn2.to_q.", "cross_attn.q."),
    ("attn2.to_k.", "cross_attn.k."),
    ("attn2.to_v.", "cross_attn.v."),
    ("attn2.to_out.0.", "cross_attn.o."),
    ("attn2.add_k_proj.", "cross_attn.k_img."),
    ("attn2.add_v_proj.", "cross_attn.v_img."),
    ("attn2.norm_added_k.", "cross_attn.norm_k_img."),
    ("attn2.norm_", "cross_attn.norm_"),
    ("norm2.", "norm3."),
    ("ffn.net.0.proj.", "ffn.0."),
    ("ffn.net.2.", "ffn.2."),
    ("scale_shift_table", "modulation"),
)
_BLOCK = re.compile(r"^blocks\.(\d+)\.(.+)$")
IMAGE_EMBEDDERS = ("img_emb.", "condition_embedder.image_embedder.")
"""Wan's and diffusers' names of what image-to-video checkpoints have in front of the image branch."""
FEW = 8
"""A report names this many tensors of a layer; of more it tells the number."""
_SIZES = {
    "patch_embedding.bias": ("dim",),
    "blocks.0.ffn.0.weight": ("ffn_dim", "dim"),
    "text_embedding.0.weight": ("dim", "text_dim"),
    "time_embedding.0.weight": ("dim", "freq_dim"),
}


@dataclass(frozen=True)
class Conversion:
    """What became of every name.

    Attributes:
        used: names of the checkpoint whose tensors went into the tower.
        unused: names of the checkpoint that the tower has no place for, or layers that were not chosen.
        missing: parameters of the tower that the checkpoint does not have.
        zeroed: parameters that start at zero, wholly or in their added input channels, so that the tower computes
            what the checkpoint's model does.
        layers: the checkpoint's layer that each of the tower's layers was taken from.
        notes: what there is to know about some of it.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    zeroed: tuple[str, ...]
    layers: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the report for people: counts, layers, and every name that did not simply go across."""
        lines = [
            f"{len(self.used)} tensors used, {len(self.unused)} unused, {len(self.missing)} missing",
            f"layers taken: {', '.join(map(str, self.layers))}",
        ]
        for title, names in (("unused", self.unused), ("missing", self.missing), ("start at zero", self.zeroed)):
            lines += [f"{title}:", *(f"  {name}" for name in _grouped(names))] if names else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@torch.no_grad()
def load_wan(video_dit: VideoDiT, state_dict: Mapping[str, Tensor], layers: Layers = None) -> Conversion:
    """Copy Wan's weights into a tower of the same widths; nothing is changed unless everything fits.

    The tower may have more input channels than the checkpoint (36 against 16): the added ones start at zero. It may
    have image tokens (``reference=True``) that the checkpoint has not: their values start at zero. In both cases the
    tower computes what the checkpoint's model does. It may have no text branch: then that branch is not used.

    Args:
        video_dit: the tower; its dtype and device stay.
        state_dict: tensors by Wan's own or diffusers' names, of any floating-point dtype; float8 with its scales
            (:mod:`df_models.convert.scales`).
        layers: which of the checkpoint's layers to take: None or ``all`` (the tower must have as many), ``first`` or
            a number (the first ones), ``even`` (evenly spaced, with the first and the last), or a list of indices.

    Returns:
        What became of every name.

    Raises:
        UserError: it is no Wan transformer, a width differs, or the layers do not fit; the message says which.
    """
    original = original_names(state_dict)
    found, scales, said = split_scales({name: state_dict[key] for name, key in original.items()})
    depth = _depth(found)
    chosen = choose_layers(layers, depth, video_dit.config.num_layers)
    wanted = dict(video_dit.named_parameters())
    if any(parameter.is_meta for parameter in wanted.values()):
        raise UserError("the tower is on the meta device and holds no weights; build it on a real device")
    sources = {name: _source(name, chosen) for name in wanted}
    missing = [name for name, source in sources.items() if source not in found]
    _check(wanted, {name: found[source] for name, source in sources.items() if source in found}, missing)
    zeroed = [name for name in missing if ".v_img." in name]
    for name, parameter in wanted.items():
        if name in zeroed:
            parameter.zero_()
        elif name not in missing:
            source = sources[name]
            zeroed += _copy(name, parameter, scaled(found[source], scales.get(source)))
    taken = {sources[name] for name in wanted} & found.keys()
    unused = [name for name in found if name not in taken]
    return Conversion(
        used=tuple(original[name] for name in (*(n for n in found if n in taken), *said)),
        unused=tuple(original[name] for name in unused),
        missing=tuple(missing),
        zeroed=tuple(zeroed),
        layers=chosen,
        notes=_notes(unused, len(scales)),
    )


def _notes(unused: Sequence[str], scales: int) -> tuple[str, ...]:
    notes = []
    if scales:
        notes.append(f"{scales} float8 weights were multiplied by their scales; they keep float8's 3 bits of mantissa")
    if any(name.startswith(IMAGE_EMBEDDERS) for name in unused):
        notes.append(
            "img_emb projects CLIP's features of the image to the tokens that k_img and v_img were trained on. "
            "DualForce makes such tokens from its own reference encoder by a resampler that is trained anew, so it has "
            "no place for img_emb; a tower alone takes tokens of its width (reference=)"
        )
    return tuple(notes)


def export_wan(video_dit: VideoDiT, names: Names = "wan") -> dict[str, Tensor]:
    """Return the tower's weights by Wan's own names or by diffusers', the way back from :func:`load_wan`."""
    if names not in ("wan", "diffusers"):
        raise UserError(f"names must be 'wan' or 'diffusers', not {names!r}")
    tensors = {name: tensor.detach() for name, tensor in video_dit.state_dict().items()}
    return tensors if names == "wan" else {_to_diffusers(name): tensor for name, tensor in tensors.items()}


def wan_sizes(state_dict: Mapping[str, Tensor]) -> dict[str, object]:
    """Read a checkpoint's sizes: keyword arguments of :class:`VideoDiTConfig` for a tower that takes it whole.

    ``num_heads`` is not in the weights; every published Wan has heads of 128 channels, and so is it counted here.

    Raises:
        UserError: it is no Wan transformer.
    """
    found, _, _ = split_scales({name: state_dict[key] for name, key in original_names(state_dict).items()})
    num_layers = _depth(found)
    dim, in_dim, *patch = found["patch_embedding.weight"].shape
    text = found.get("text_embedding.0.weight")
    return {
        "dim": dim,
        "num_layers": num_layers,
        "num_heads": max(1, dim // 128),
        "ffn_dim": found["blocks.0.ffn.0.weight"].shape[0],
        "in_dim": in_dim,
        "out_dim": found["head.head.bias"].numel() // (patch[0] * patch[1] * patch[2]),
        "patch_size": tuple(patch),
        "text_dim": 0 if text is None else text.shape[1],
        "freq_dim": found["time_embedding.0.weight"].shape[1],
        "reference": "blocks.0.cross_attn.k_img.weight" in found,
    }


def original_names(names: Mapping[str, object] | Sequence[str]) -> dict[str, str]:
    """Return the given names by Wan's own: diffusers' are translated, wrappers' prefixes taken off."""
    prefix = next((w for w in WRAPPERS if any(name.startswith(f"{w}blocks.") for name in names)), "")
    plain = {name.removeprefix(prefix): name for name in names}
    if not any(".attn1." in name or name.startswith("condition_embedder.") for name in plain):
        return plain
    return {_from_diffusers(name): given for name, given in plain.items()}


def choose_layers(layers: Layers, available: int, wanted: int) -> tuple[int, ...]:
    """Return which of ``available`` layers go into a tower of ``wanted``; see :func:`load_wan`.

    Raises:
        UserError: they do not fit.
    """
    if isinstance(layers, str) and layers not in ("all", "first", "even"):
        options = ("all", "first", "even")
        raise UserError(f"layers must be one of {', '.join(options)}, a number or a list{nearest(layers, options)}")
    if layers is None or layers == "all":
        if available != wanted:
            hint = "say which with layers='even' or 'first'" if available > wanted else "build a shallower tower"
            raise UserError(f"the checkpoint has {available} layers and the tower {wanted}; {hint}, or give a list")
        return tuple(range(wanted))
    if isinstance(layers, (str, int)):
        number = wanted if isinstance(layers, str) else layers
        if number != wanted or wanted > available:
            raise UserError(
                f"cannot take {number} of the checkpoint's {available} layers into a tower that has {wanted}"
            )
        if layers == "even" and wanted > 1:
            return tuple(round(i * (available - 1) / (wanted - 1)) for i in range(wanted))
        return tuple(range(wanted))
    chosen = tuple(layers)
    if len(chosen) != wanted:
        raise UserError(f"{len(chosen)} layers are listed, but the tower has {wanted}")
    wrong = [index for index in chosen if not 0 <= index < available]
    if wrong:
        raise UserError(f"layer {wrong[0]} is not in the checkpoint, which has layers 0 to {available - 1}")
    return chosen


def _from_diffusers(name: str) -> str:
    if name == "scale_shift_table":
        return "head.modulation"
    block = _BLOCK.match(name)
    if block is None:
        return _replace_start(name, _DIFFUSERS)
    return f"blocks.{block[1]}.{_replace_start(block[2], _DIFFUSERS_BLOCK)}"


def _to_diffusers(name: str) -> str:
    if name == "head.modulation":
        return "scale_shift_table"
    block = _BLOCK.match(name)
    table = _DIFFUSERS if block is None else _DIFFUSERS_BLOCK
    inverse = tuple((ours, theirs) for theirs, ours in table)
    return _replace_start(name, inverse) if block is None else f"blocks.{block[1]}.{_replace_start(block[2], inverse)}"


def _replace_start(name: str, table: Sequence[tuple[str, str]]) -> str:
    for old, new in table:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _depth(found: Mapping[str, Tensor]) -> int:
    """Return the number of layers of a checkpoint, once sure that it is a Wan transformer."""
    needed = ("patch_embedding.weight", "time_embedding.0.weight", "head.head.bias", "blocks.0.ffn.0.weight")
    lacking = [name for name in needed if name not in found]
    if lacking:
        raise UserError(f"this is no Wan transformer: {lacking[0]} is missing, by Wan's names and by diffusers'")
    indices = {int(match[1]) for name in found if (match := _BLOCK.match(name))}
    if indices != set(range(len(indices))):
        gap = min(set(range(len(indices))) - indices)
        raise UserError(f"the checkpoint is incomplete: layer {gap} of {max(indices) + 1} is missing; fetch it again")
    return len(indices)


def _source(name: str, chosen: Sequence[int]) -> str:
    block = _BLOCK.match(name)
    return name if block is None else f"blocks.{chosen[int(block[1])]}.{block[2]}"


def _check(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], missing: Sequence[str]) -> None:
    optional = [name for name in missing if "_img." in name]
    if len(optional) < len(missing):
        name = next(name for name in missing if name not in optional)
        raise UserError(f"the checkpoint has no {name}, which the tower needs; build the tower without it")
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            raise UserError(f"{name} is {tensor.dtype}, not a floating-point tensor; give unquantised weights")
    misfits = [name for name, tensor in found.items() if not _fits(name, wanted[name].shape, tensor.shape)]
    if misfits:
        name = next((n for n in _SIZES if n in misfits), misfits[0])
        ours, theirs = list(wanted[name].shape), list(found[name].shape)
        sizes = [f"{key}={b}" for key, a, b in zip(_SIZES.get(name, ()), ours, theirs) if a != b]
        hint = f"; build the tower with {', '.join(sizes)}" if sizes else ""
        raise UserError(f"{name} is {theirs} in the checkpoint and {ours} in the tower{hint}")


def _fits(name: str, ours: torch.Size, theirs: torch.Size) -> bool:
    if name == "patch_embedding.weight" and len(theirs) == len(ours):
        return theirs[1] <= ours[1] and (theirs[0], *theirs[2:]) == (ours[0], *ours[2:])
    return ours == theirs


def _copy(name: str, parameter: Tensor, tensor: Tensor) -> list[str]:
    """Copy one tensor; return its name if added input channels were filled with zeros."""
    if parameter.shape == tensor.shape:
        parameter.copy_(tensor)
        return []
    channels = tensor.shape[1]
    parameter.zero_()
    parameter[:, :channels].copy_(tensor)
    return [f"{name}[:, {channels}:]"]


def _grouped(names: Sequence[str]) -> list[str]:
    """Return names with layers gathered: ``blocks.{0-19}.cross_attn.k_img.weight``, or whole layers in one line."""
    layers: dict[str, set[int]] = {}
    plain = []
    for name in names:
        head, found, rest = name.partition("blocks.")
        index, _, tail = rest.partition(".")
        if found:
            layers.setdefault(f"{head}blocks.#.{tail}", set()).add(int(index))
        else:
            plain.append(name)
    alike: dict[tuple[int, ...], list[str]] = {}
    for pattern, indices in layers.items():
        alike.setdefault(tuple(sorted(indices)), []).append(pattern)
    lines = list(plain)
    for indices, patterns in alike.items():
        where = "{" + _ranges(indices) + "}"
        if len(patterns) > FEW:
            lines.append(f"blocks.{where}: {len(patterns)} tensors each")
        else:
            lines += [pattern.replace("#", where) for pattern in patterns]
    return lines


def _ranges(indices: Sequence[int]) -> str:
    """Return sorted numbers as text, neighbours joined: ``0-2, 5``."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
