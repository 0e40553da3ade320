"""Named fields of the structure and FLAME vectors: never a padded bag of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from df_models.errors import UserError, nearest


@dataclass(frozen=True)
class VectorLayout:
    """Names and widths of the fields of a vector, in their order.

    Attributes:
        name: what the layout is called in manifests and configs.
        fields: (field, width) pairs; offsets follow from the order.
    """

    name: str
    fields: tuple[tuple[str, int], ...]

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
)
"""LivePortrait's canonical motion: expression is 21 keypoints x (x, y, z); angles are decoded, in degrees.

Source: KwaiVGI/LivePortrait, ``src/live_portrait_wrapper.py``: keypoints = scale * (canonical @ R + expression) + t,
of which t_z is not applied (:func:`df_models.encoders.face.liveportrait.compose_keypoints`).
"""

FLAME_159 = VectorLayout("flame159", (("shape", 100), ("expression", 50), ("pose", 6), ("camera", 3)))
"""FLAME as DECA and EMOCA give it. ``pose`` is axis-angle in radians: global rotation 3, then jaw 3.

Source: YadiraF/DECA, ``decalib/utils/config.py`` (texture and light left out).
"""
