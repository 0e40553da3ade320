"""Who a synthetic person is: the constant parameters of a head, sampled from an index.

Every parameter starts as a uniform number drawn from a hash of the identity index, so that person 17 is the same person
on every machine and in every process. The identity vector is made of those same numbers, standardised to mean 0 and
variance 1, and holds only what can be seen.
"""

from __future__ import annotations

import colorsys
import hashlib
from dataclasses import dataclass, fields

import numpy as np

HAIR_STYLES = ("buzz", "short", "fringe", "bob", "long", "curly")

# name -> (low, high): geometry in head units (chin at y = 1), colours and mixtures in [0, 1].
_RANGES: dict[str, tuple[float, float]] = {
    "head_width": (0.90, 1.08),
    "head_height": (0.95, 1.05),
    "jaw_width": (0.82, 1.18),
    "chin_length": (-0.05, 0.05),
    "cheek_fullness": (0.0, 1.0),
    "nose_length": (0.22, 0.38),
    "nose_width": (0.075, 0.125),
    "eye_spacing": (0.325, 0.385),
    "eye_size": (0.85, 1.18),
    "eye_tilt": (-0.10, 0.16),
    "mouth_width": (0.285, 0.355),
    "upper_lip": (0.045, 0.080),
    "lower_lip": (0.060, 0.105),
    "mouth_height": (-0.025, 0.03),
    "brow_thickness": (0.022, 0.050),
    "brow_height": (-0.03, 0.035),
    "skin_tone": (0.0, 1.0),
    "skin_warmth": (0.0, 1.0),
    "lip_redness": (0.4, 1.1),
    "hair_lightness": (0.0, 1.0),
    "hair_warmth": (0.0, 1.0),
    "hair_volume": (0.05, 0.17),
    "eye_lightness": (0.0, 1.0),
    "eye_hue": (0.0, 1.0),
    "stubble": (0.0, 1.0),
    "size": (0.95, 1.05),
    "clothes_hue": (0.0, 1.0),
    "clothes_lightness": (0.15, 0.9),
    "clothes_saturation": (0.1, 0.75),
    "background_hue": (0.0, 1.0),
    "background_lightness": (0.25, 0.9),
    "background_saturation": (0.05, 0.4),
    "background_slope": (-1.0, 1.0),
    "background_spot_x": (0.0, 1.0),
    "background_spot_y": (0.0, 0.7),
}

VISIBLE = (
    "head_width",
    "jaw_width",
    "chin_length",
    "nose_length",
    "nose_width",
    "eye_spacing",
    "eye_size",
    "eye_tilt",
    "mouth_width",
    "upper_lip",
    "lower_lip",
    "mouth_height",
    "brow_thickness",
    "skin_tone",
    "skin_warmth",
    "lip_redness",
    "hair_lightness",
    "hair_warmth",
    "eye_lightness",
    "clothes_lightness",
)
"""Parameters that make up the identity vector, in its order."""

IDENTITY_DIM = len(VISIBLE)


@dataclass(frozen=True)
class Identity:
    """The constant parameters of one person (see ``_RANGES`` for units) and of the image around them."""

    index: int
    hair_style: str
    head_width: float
    head_height: float
    jaw_width: float
    chin_length: float
    cheek_fullness: float
    nose_length: float
    nose_width: float
    eye_spacing: float
    eye_size: float
    eye_tilt: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    mouth_height: float
    brow_thickness: float
    brow_height: float
    skin_tone: float
    skin_warmth: float
    lip_redness: float
    hair_lightness: float
    hair_warmth: float
    hair_volume: float
    eye_lightness: float
    eye_hue: float
    stubble: float
    size: float
    clothes_hue: float
    clothes_lightness: float
    clothes_saturation: float
    background_hue: float
    background_lightness: float
    background_saturation: float
    background_slope: float
    background_spot_x: float
    background_spot_y: float

    @classmethod
    def sample(cls, identity: int) -> Identity:
        """The person with this index: the same on every machine."""
        rng = hashed_generator("identity", identity)
        values = {name: low + (high - low) * rng.random() for name, (low, high) in _RANGES.items()}
        style = HAIR_STYLES[int(rng.random() * len(HAIR_STYLES))]
        return cls(index=identity, hair_style=style, **values)


def hashed_generator(purpose: str, *numbers: int) -> np.random.Generator:
    """A Philox generator keyed by a hash of ``purpose`` and ``numbers``, independent of process and platform."""
    text = "/".join([purpose, *(str(int(n)) for n in numbers)])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def identity_vector(identity: Identity) -> np.ndarray:
    """The visible parameters, each with mean 0 and variance 1 over people: float32 ``[IDENTITY_DIM]``."""
    unit = [_unit(identity, name) for name in VISIBLE]
    return ((np.array(unit) - 0.5) * np.sqrt(12.0)).astype(np.float32)


def all_parameters(identity: Identity) -> np.ndarray:
    """Every continuous parameter, standardised like :func:`identity_vector`: float64 ``[len(_RANGES)]``."""
    return (np.array([_unit(identity, name) for name in _RANGES]) - 0.5) * np.sqrt(12.0)


def _unit(identity: Identity, name: str) -> float:
    low, high = _RANGES[name]
    return (getattr(identity, name) - low) / (high - low)


@dataclass(frozen=True)
class Palette:
    """Display colours of a person, each ``(r, g, b)`` in [0, 1]."""

    skin: np.ndarray
    lips: np.ndarray
    hair: np.ndarray
    brows: np.ndarray
    iris: np.ndarray
    clothes: np.ndarray
    background_top: np.ndarray
    background_bottom: np.ndarray
    background_spot: np.ndarray

    def table(self) -> np.ndarray:
        """All colours as float64 ``[9, 3]`` in field order."""
        return np.stack([getattr(self, f.name) for f in fields(self)])


_SKIN_TONES = np.array(
    [[0.33, 0.21, 0.15], [0.52, 0.35, 0.25], [0.72, 0.52, 0.39], [0.88, 0.68, 0.55], [0.96, 0.80, 0.70]]
)
_HAIR_TONES = np.array(
    [[0.07, 0.06, 0.06], [0.20, 0.13, 0.09], [0.38, 0.25, 0.15], [0.62, 0.45, 0.25], [0.86, 0.72, 0.47]]
)


def palette(identity: Identity) -> Palette:
    """Colours of a person. Hair is bounded by the skin tone, so that people look plausible."""
    skin = _ramp(_SKIN_TONES, identity.skin_tone)
    skin = skin * (1 + (identity.skin_warmth - 0.5) * np.array([0.10, 0.0, -0.20]))
    hair = _ramp(_HAIR_TONES, identity.hair_lightness * (0.35 + 0.65 * identity.skin_tone))
    hair = hair * (1 + (identity.hair_warmth - 0.5) * np.array([0.5, -0.05, -0.45]))
    lips = skin * (1 - 0.35 * identity.lip_redness * np.array([0.35, 1.15, 0.95])) + np.array([0.04, 0, 0.01])
    iris_dark = np.array([0.24, 0.14, 0.08])
    iris_light = _ramp(np.array([[0.50, 0.42, 0.24], [0.40, 0.50, 0.34], [0.38, 0.54, 0.68]]), identity.eye_hue)
    iris = iris_dark + (iris_light - iris_dark) * identity.eye_lightness
    back_light = identity.background_lightness
    slope = 0.16 * identity.background_slope
    background = [
        _hsl(identity.background_hue, np.clip(back_light + shift, 0.08, 0.97), identity.background_saturation)
        for shift in (slope, -slope, 0.14)
    ]
    clothes = _hsl(identity.clothes_hue, identity.clothes_lightness, identity.clothes_saturation)
    colours = (skin, lips, hair, hair * 0.75 + 0.02, iris, clothes, *background)
    return Palette(*(np.clip(c, 0.02, 1.0) for c in colours))


def _ramp(stops: np.ndarray, position: float) -> np.ndarray:
    grid = np.linspace(0, 1, len(stops))
    return np.array([np.interp(position, grid, stops[:, c]) for c in range(3)])


def _hsl(hue: float, lightness: float, saturation: float) -> np.ndarray:
    return np.array(colorsys.hls_to_rgb(hue % 1.0, float(lightness), saturation))
