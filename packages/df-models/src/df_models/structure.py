"""Named fields of the structure and FLAME vectors, and what a structure vector means: never a padded bag of numbers.

Two encoders may give vectors of the same fields whose numbers mean different things. So what travels with a dataset, a
model and generated motion is a :class:`StructureLayout`: the fields, their units, and which encoder made them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from df_models.errors import UserError, nearest

ArrayT = TypeVar("ArrayT", bound=Any)


@dataclass(frozen=True)
class VectorLayout:
    """Names and widths of the fields of a vector, in their order.

    Attributes:
        name: what the layout is called in manifests and configs.
        fields: (field, width) pairs; offsets follow from the order.
        units: one per field, in their order; empty where they are not stated.
    """

    name: str
    fields: tuple[tuple[str, int], ...]
    units: tuple[str, ...] = ()

    @cached_property
    def dim(self) -> int:
        """Width of the whole vector."""
        return sum(width for _, width in self.fields)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name per entry: ``pitch`` for a field of width 1, ``translation[2]`` for wider ones."""
        return tuple(f if w == 1 else f"{f}[{i}]" for f, w in self.fields for i in range(w))

    def slice(self, field: str) -> slice:
        """Return where a field lies in the vector.

        Raises:
            UserError: the layout has no such field.
        """
        start = 0
        for name, width in self.fields:
            if name == field:
                return slice(start, start + width)
            start += width
        known = [name for name, _ in self.fields]
        raise UserError(f"layout {self.name!r} has no field {field!r}{nearest(field, known)}; it has {known}")


LIVEPORTRAIT_70 = VectorLayout(
    "liveportrait70",
    (("expression", 63), ("pitch", 1), ("yaw", 1), ("roll", 1), ("translation", 3), ("scale", 1)),
    ("canonical keypoint units", "degrees", "degrees", "degrees", "units of LivePortrait's crop", "1"),
)
"""LivePortrait's canonical motion: expression is 21 keypoints x (x, y, z); angles are decoded, in degrees.

Source: KwaiVGI/LivePortrait, ``src/live_portrait_wrapper.py``: keypoints = scale * (canonical @ R + expression) + t,
of which t_z is not applied (:func:`df_models.encoders.face.liveportrait.compose_keypoints`).
"""

MEDIAPIPE_70 = replace(
    LIVEPORTRAIT_70,
    units=(
        "face heights",
        "degrees",
        "degrees",
        "degrees",
        "half crop sides; z in metres",
        "half crop sides",
    ),
)
"""The same fields as df-data makes them of MediaPipe's landmarks (``df_data.stages.readings``)."""

SYNTHETIC_70 = replace(LIVEPORTRAIT_70, units=("head units", "degrees", "degrees", "degrees", "head units", "1"))
"""The same fields as the synthetic corpus renders them (``df_data.synth.head.structure``)."""

EYELIDS = "eyelids"
"""The eyelids' keypoints within ``expression``: a part that is named like a field (:meth:`StructureLayout.entries`)."""

_PARTS = {(LIVEPORTRAIT_70.name, EYELIDS): ("expression", (13, 16, 18))}
"""By layout and part: the field and the keypoints, of three entries each. Lids are the eyes' keypoints (11, 13, 15, 16,
18 in LivePortrait's ``live_portrait_pipeline.py``) without the eyeballs (11 and 15 in its ``gradio_pipeline.py``)."""

FLAME_159 = VectorLayout("flame159", (("shape", 100), ("expression", 50), ("pose", 6), ("camera", 3)))
"""FLAME as DECA and EMOCA give it. ``pose`` is axis-angle in radians: global rotation 3, then jaw 3.

Source: YadiraF/DECA, ``decalib/utils/config.py`` (texture and light left out).
"""

FLAME_MOTION_59 = VectorLayout(
    "flame_motion59",
    (("expression", 50), ("rotation", 3), ("jaw", 3), ("camera", 3)),
    ("FLAME's coefficients", "radians (axis-angle)", "radians (axis-angle)", "weak perspective: scale, x, y"),
)
"""What moves of FLAME's vector: all but ``shape``, its ``pose`` in its two halves. The camera counts as motion: it is
where the head stands in the crop, and how near."""


def flame_motion(flame: ArrayT) -> ArrayT:
    """Return the motion ``[..., 59]`` of FLAME vectors ``[..., 159]``: :data:`FLAME_MOTION_59`."""
    return flame[..., FLAME_159.slice("shape").stop :]


class StructureField(NamedTuple):
    """A named part of a structure vector."""

    name: str
    width: int
    unit: str


@dataclass(frozen=True)
class StructureLayout:
    """What the numbers of a structure vector mean, and what made them.

    Attributes:
        name: of the fields' layout, such as ``liveportrait70``.
        encoder: id of what made the vectors.
        sha256: of its weights; of what an encoder without weights is defined by, its layout.
        fields: in their order.
    """

    name: str
    encoder: str
    sha256: str
    fields: tuple[StructureField, ...]

    @classmethod
    def of(cls, layout: VectorLayout, encoder: str, sha256: str | None = None) -> StructureLayout:
        """Return the layout of an encoder's vectors; ``sha256`` None: the encoder has no weights."""
        units = layout.units or ("",) * len(layout.fields)
        fields = tuple(StructureField(*field, unit) for field, unit in zip(layout.fields, units, strict=True))
        if sha256 is None:
            sha256 = hashlib.sha256(json.dumps([layout.name, encoder, fields]).encode()).hexdigest()
        return cls(layout.name, encoder, sha256, fields)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StructureLayout:
        """Rebuild what :meth:`to_dict` gave.

        Raises:
            UserError: the values are not those of a layout.
        """
        try:
            fields = tuple(StructureField(str(name), int(width), str(unit)) for name, width, unit in values["fields"])
            return cls(str(values["name"]), str(values["encoder"]), str(values["sha256"]), fields)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"this is no layout of structure vectors ({error!r}): {values}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "fields": [list(field) for field in self.fields]}

    def entries(self, names: Iterable[str]) -> list[bool]:
        """Return for each of the V entries whether it belongs to one of some fields, or of their named parts.

        Raises:
            UserError: there is no such field.
        """
        places = [place for name in names for place in self._places(name)]
        return [any(place.start <= entry < place.stop for place in places) for entry in range(self.vector.dim)]

    def has(self, name: str) -> bool:
        """Return whether a field, or a part that is named like one, is there."""
        return (self.name, name) in _PARTS or any(field.name == name for field in self.fields)

    def _places(self, name: str) -> list[slice]:
        if not self.has(name):
            known = [field.name for field in self.fields] + [part for layout, part in _PARTS if layout == self.name]
            raise UserError(f"layout {self.name!r} has no field {name!r}{nearest(name, known)}; it has {known}")
        if (self.name, name) not in _PARTS:
            return [self.vector.slice(name)]
        field, keypoints = _PARTS[self.name, name]
        start = self.vector.slice(field).start
        return [slice(start + 3 * keypoint, start + 3 * keypoint + 3) for keypoint in keypoints]

    @property
    def vector(self) -> VectorLayout:
        """The fields alone, to find one in a vector by its name."""
        return VectorLayout(
            self.name, tuple((f.name, f.width) for f in self.fields), tuple(field.unit for field in self.fields)
        )

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return sum(field.width for field in self.fields)

    def __str__(self) -> str:
        """Return it as messages name it."""
        return f"{self.encoder}'s (sha256 {self.sha256[:12]}, {self.name})"


def require_same(mine: StructureLayout | None, theirs: StructureLayout | None, whose: tuple[str, str]) -> None:
    """Refuse structure vectors that mean something else; one that is unknown (None) cannot be compared.

    Args:
        whose: what has ``mine`` and what has ``theirs``, as in ``("the model", "the dataset")``.

    Raises:
        UserError: naming both.
    """
    if mine is None or theirs is None or mine == theirs:
        return
    raise UserError(
        f"the structure vectors of {whose[0]} are {mine}, those of {whose[1]} {theirs}: their numbers mean different "
        f"things; use a dataset and a model of one structure encoder"
    )
