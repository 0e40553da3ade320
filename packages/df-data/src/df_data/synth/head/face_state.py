"""What a synthetic face does: one number per frame for each articulator, the pose and the light."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from df_models.errors import UserError


@dataclass(frozen=True)
class FaceTracks:
    """Per-frame motion of a head, each field float32 ``[T]``.

    Angles turn the head as LivePortrait's rotation does, in a frame with x to the right of the image, y down and z
    away from the camera: ``yaw > 0`` turns the nose to the left of the image, ``pitch > 0`` lowers it, ``roll > 0``
    tilts the head clockwise as seen.

    Attributes:
        yaw, pitch, roll: degrees; natural within +-25, +-15, +-10.
        tx, ty: shift to the right and down, in shares of the frame; natural within +-0.08.
        tz: approach to the camera as a share of its distance; natural within +-0.06.
        jaw: opening, 0 (closed) to 1.
        lip_width: -1 (narrow) to 1 (spread).
        lip_round: 0 to 1 (rounded and protruded).
        blink: 0 (open eyes) to 1 (closed).
        brow: -1 (lowered) to 1 (raised).
        gaze_x, gaze_y: -1 to 1, right and down in the image.
        light_azimuth: degrees, positive from the right of the image.
        light_elevation: degrees above the horizon.
        light_intensity: 1 is normal.
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    tx: np.ndarray
    ty: np.ndarray
    tz: np.ndarray
    jaw: np.ndarray
    lip_width: np.ndarray
    lip_round: np.ndarray
    blink: np.ndarray
    brow: np.ndarray
    gaze_x: np.ndarray
    gaze_y: np.ndarray
    light_azimuth: np.ndarray
    light_elevation: np.ndarray
    light_intensity: np.ndarray

    def __post_init__(self) -> None:
        lengths = {f.name: np.shape(getattr(self, f.name)) for f in fields(self)}
        if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) != 1:
            raise UserError(f"every face track must have the same shape [T], got {lengths}")
        for name in lengths:
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float32))
            if not np.isfinite(getattr(self, name)).all():
                raise UserError(f"face track '{name}' holds a value that is not finite")

    def __len__(self) -> int:
        return len(self.yaw)

    @classmethod
    def neutral(cls, num_frames: int, **tracks: np.ndarray | float) -> FaceTracks:
        """A still face under the default light, with the given tracks (arrays ``[T]`` or constants) replaced."""
        values = {f.name: 0.0 for f in fields(cls)} | dict(_DEFAULT_LIGHT)
        unknown = set(tracks) - set(values)
        if unknown:
            raise UserError(f"unknown face tracks {sorted(unknown)}; there are {sorted(values)}")
        full = {n: np.broadcast_to(np.float32(tracks.get(n, v)), (num_frames,)) for n, v in values.items()}
        return cls(**full)

    def as_array(self) -> np.ndarray:
        """float64 ``[T, 16]`` in field order."""
        return np.stack([getattr(self, f.name) for f in fields(self)], axis=1).astype(np.float64)


_DEFAULT_LIGHT = {"light_azimuth": -30.0, "light_elevation": 35.0, "light_intensity": 1.0}


def random_tracks(rng: np.random.Generator, num_frames: int) -> FaceTracks:
    """Return independent random states, a little beyond the natural ranges: nothing can be told from anything else."""

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, num_frames)

    def often(value: float, share: float, otherwise: np.ndarray) -> np.ndarray:
        return np.where(rng.random(num_frames) < share, value, otherwise)

    return FaceTracks(
        yaw=uniform(-30, 30),
        pitch=uniform(-18, 18),
        roll=uniform(-13, 13),
        tx=uniform(-0.1, 0.1),
        ty=uniform(-0.1, 0.1),
        tz=uniform(-0.08, 0.08),
        jaw=often(0.0, 0.15, uniform(0, 1) ** 1.2),
        lip_width=uniform(-1, 1),
        lip_round=often(0.0, 0.4, uniform(0, 1)),
        blink=often(0.0, 0.4, uniform(0, 1)),
        brow=uniform(-1, 1),
        gaze_x=uniform(-1, 1),
        gaze_y=uniform(-1, 1),
        light_azimuth=uniform(-75, 75),
        light_elevation=uniform(-5, 65),
        light_intensity=uniform(0.75, 1.25),
    )
