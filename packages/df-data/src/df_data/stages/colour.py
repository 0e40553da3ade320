"""Images of other colours than BT.709, made BT.709: HDR (HLG, PQ) tone-mapped, wide gamuts converted.

What a display is meant to show is computed and encoded for a display of standard range, by the published formulas:

- HLG and PQ to light: Recommendation ITU-R BT.2100, tables 4 and 5; HLG's system gamma 1.2 is that of a display of
  1000 cd/m2. Images of standard range: BT.1886, gamma 2.4.
- Gamuts: matrices from the chromaticities of BT.709, BT.2020 and SMPTE EG 432-1 (P3, D65); what lies outside BT.709 is
  clipped.
- Highlights: the knee (EETF) of Report ITU-R BT.2390, section 5.4.1, on the largest of R, G and B, so that hues stay.
  White of standard range is HDR reference white, 203 cd/m2 (Report ITU-R BT.2408, table 1), the brightest light 1000.

Everything below 88 cd/m2 (of standard range: level 180 of 255) so keeps its light; white in standard range, put into
HDR by BT.2408, comes back as level 230, and 240 as 224. FFmpeg as PyAV ships it has no `zscale`; the tone mapping of
its scaler makes 203 cd/m2 in PQ level 155.

Shape legend: H height, W width, N points of the table a side.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from df_data.stages.rejection import Rejected
from df_models.media import Scaler

if TYPE_CHECKING:
    from PIL import ImageFilter

PQ, HLG = 16, 18
"""Transfer characteristics by ITU-T H.273, table 3 (FFmpeg's AVColorTransferCharacteristic)."""
BT2020, P3_D65 = 9, 12
"""Colour primaries by H.273, table 2."""
ICTCP, IPT_C2 = 14, 15
"""Matrix coefficients (H.273, table 4) that the scaler does not know; 15 is Dolby Vision's profile 5."""
UNSPECIFIED = 2
"""What H.273 has for colours of which nothing is said."""
DOLBY_VISION = ("dvh1", "dvhe", "dav1")
"""Sample entries of Dolby Vision over HEVC and AV1."""
CHROMATICITIES = {
    "BT.709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "BT.2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
WHITE_D65 = (0.3127, 0.3290)
REFERENCE_WHITE, BRIGHTEST = 203.0, 1000.0
"""cd/m2 (above)."""
POINTS = 65
"""Points of the table a side, the most that Pillow takes; between them highlights are up to 3 levels darker."""


class Colours(NamedTuple):
    """What a decoded frame says of its colours, in H.273's numbers."""

    transfer: int = UNSPECIFIED
    primaries: int = UNSPECIFIED

    @property
    def high_range(self) -> bool:
        """Whether these are HDR's."""
        return self.transfer in (PQ, HLG)

    @property
    def gamut(self) -> str:
        """The primaries' name; those of HDR that say nothing are BT.2020's, as BT.2100 has them."""
        if self.primaries == P3_D65:
            return "P3"
        return "BT.2020" if self.primaries == BT2020 or self.high_range else "BT.709"

    @property
    def standard(self) -> bool:
        """Whether nothing has to be done."""
        return self.gamut == "BT.709"


def colours_of(frame: Any) -> Colours:
    """Return a PyAV frame's colours.

    Raises:
        Rejected: ``colours_not_read``, they are coded in a way that is not read.
    """
    if frame.colorspace in (ICTCP, IPT_C2):
        raise Rejected("colours_not_read", "colours coded as ICtCp or for Dolby Vision alone; convert it to BT.709")
    return Colours(int(frame.color_trc), int(frame.color_primaries))


def rgb_of(frame: Any, width: int, height: int, colours: Colours, scaler: Scaler | None = None) -> np.ndarray:
    """Return a PyAV frame at a size as uint8 RGB ``[H, W, 3]`` of BT.709, not turned; ``scaler``: of its video."""
    scaler = scaler or Scaler()
    if colours.standard:
        return scaler.rgb(frame, "rgb24", width, height)
    return to_bt709(scaler.rgb(frame, "rgb48", width, height), colours)


def shown_colours(frame: Any) -> Colours:
    """Return a frame's colours for a person who only wants to see it: those that are not read count as BT.709."""
    try:
        return colours_of(frame)
    except Rejected:
        return Colours()


def refuse_dolby_vision(codec: Any) -> None:
    """Do nothing unless a codec context is of a file whose images only Dolby Vision can show (its profile 5).

    Such a stream has Dolby's name in place of the codec's, and says nothing of its colours; one that others can show
    says them (Dolby Vision Streams Within the ISO Base Media File Format, 3.1; ETSI TS 103 572).

    Raises:
        Rejected: ``colours_not_read``.
    """
    if str(codec.codec_tag).lower() in DOLBY_VISION and codec.color_trc == UNSPECIFIED:
        raise Rejected("colours_not_read", "colours coded for Dolby Vision alone (profile 5); convert it to BT.709")


def to_bt709(rgb_HWC: np.ndarray, colours: Colours) -> np.ndarray:
    """Return uint16 RGB ``[H, W, 3]`` of other colours as uint8 RGB of BT.709.

    The scaler rounds down to 8 bits, which HDR's curves would make up to 6 levels of, so here 16 bits are rounded.
    """
    from PIL import Image

    rounded_HWC = ((rgb_HWC.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.asarray(Image.fromarray(rounded_HWC).filter(_table(colours)))


@cache
def _table(colours: Colours) -> ImageFilter.Color3DLUT:
    from PIL import ImageFilter

    steps = np.linspace(0, 1, POINTS)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # red runs fastest, as Pillow wants it
    values = convert(np.stack([red, green, blue], axis=-1), colours).astype(np.float32)
    return ImageFilter.Color3DLUT(POINTS, values.ravel())  # pyright: ignore[reportArgumentType]  # Pillow takes arrays


def convert(rgb: np.ndarray, colours: Colours) -> np.ndarray:
    """Return R'G'B' in [0, 1], ``[..., 3]``, as R'G'B' of BT.709."""
    light = {PQ: pq_light, HLG: hlg_light}.get(colours.transfer, standard_light)(rgb)
    light = np.clip(light @ gamut_matrix(colours.gamut).T, 0, None)
    if colours.high_range:
        peak = light.max(axis=-1, keepdims=True)
        light = light * (knee(peak) / np.maximum(peak, 1e-9))
    return np.clip(light / REFERENCE_WHITE, 0, 1) ** (1 / 2.4)


def standard_light(rgb: np.ndarray) -> np.ndarray:
    """R'G'B' of standard range as light (BT.1886), its white at reference white, cd/m2."""
    return REFERENCE_WHITE * rgb**2.4


M1, M2 = 2610 / 16384, 2523 / 4096 * 128
C1, C2, C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
"""BT.2100, table 4."""


def pq_light(rgb: np.ndarray) -> np.ndarray:
    """PQ's signal as light, cd/m2 (BT.2100, table 4, EOTF)."""
    root = rgb ** (1 / M2)
    return 10000 * (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)


def pq_signal(light: np.ndarray) -> np.ndarray:
    """Light in cd/m2 as PQ's signal (BT.2100, table 4, inverse EOTF)."""
    power = (np.maximum(light, 0) / 10000) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2


def hlg_light(rgb: np.ndarray) -> np.ndarray:
    """HLG's signal as the light of a display of 1000 cd/m2 (BT.2100, table 5, inverse OETF and OOTF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(rgb <= 0.5, rgb**2 / 3, (np.exp((rgb - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return BRIGHTEST * luminance[..., None] ** 0.2 * scene


def knee(light: np.ndarray) -> np.ndarray:
    """Light of up to 1000 cd/m2, compressed to reference white (BT.2390, EETF with black at 0)."""
    top = pq_signal(np.array(BRIGHTEST))
    most = pq_signal(np.array(REFERENCE_WHITE)) / top
    start = 1.5 * most - 0.5
    signal = np.minimum(pq_signal(light) / top, 1)
    t = (signal - start) / (1 - start)
    bent = (2 * t**3 - 3 * t**2 + 1) * start + (t**3 - 2 * t**2 + t) * (1 - start) + (3 * t**2 - 2 * t**3) * most
    return pq_light(np.where(signal < start, signal, bent) * top)


def gamut_matrix(gamut: str) -> np.ndarray:
    """The matrix from linear RGB of a gamut to that of BT.709, float64 ``[3, 3]``."""
    return np.linalg.inv(_to_xyz("BT.709")) @ _to_xyz(gamut)


def _to_xyz(gamut: str) -> np.ndarray:
    """From linear RGB to XYZ, by the primaries' chromaticities and D65."""
    primaries_33 = np.stack([_xyz(x, y) for x, y in CHROMATICITIES[gamut]], axis=1)
    return primaries_33 * np.linalg.solve(primaries_33, _xyz(*WHITE_D65))


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1.0, (1 - x - y) / y])
