"""A sample's tensors as views of the bytes that were read: nothing is copied, everything is checked.

safetensors: 8 bytes little-endian length N, N bytes of JSON (name -> dtype, shape, data_offsets relative to the end of
the header), then the values, little-endian, row by row (source: the format's description in the README of
huggingface/safetensors). Clips of one length have equal headers, so a header is parsed and checked once.

`safetensors.torch.load` copies each tensor twice; here the copy into the batch is the only one.
"""

from __future__ import annotations

import json
import math
import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from df_data.format.sample import DTYPES, LATENT_CHANNELS, OF_FACES, REQUIRED
from df_models.errors import UserError
from df_models.structure import FLAME_159
from df_models.text import TEXT_TOKENS
from df_models.time import pixel_length

Buffer = memoryview

_LENGTH = struct.Struct("<Q")
_CODES = {torch.float16: "F16", torch.float32: "F32", torch.int32: "I32"}
_TYPES = {code: np.dtype(name) for code, name in (("F16", "<f2"), ("F32", "<f4"), ("I32", "<i4"))}
TAKEN = (*REQUIRED, *OF_FACES, "flame", "text_features")
"""What a batch is made of; other tensors of a sample (the truth of synthetic clips) are passed over."""


class TensorPlace(NamedTuple):
    """Type and shape of a tensor and its first byte, counted from the end of the header."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int


def tensor_views(data: Buffer, start: int, size: int, where: str) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file that stands in ``data`` from ``start``, sharing its memory.

    A clip of general video has none of the tensors of a face; they are of width 0 then.

    Raises:
        UserError: not a safetensors file, one that is cut short, or tensors that no sample has.
    """
    try:
        (length,) = _LENGTH.unpack_from(data, start)
        if length > size - _LENGTH.size:
            raise ValueError(f"its header would be {length} bytes long")
        values = start + _LENGTH.size + length
        places = parse_header(bytes(data[start + _LENGTH.size : values]), start + size - values)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise UserError(
            f"{where}: the tensors cannot be read ({error}); the shard is damaged, build it again"
        ) from error
    found = {name: np.ndarray(place.shape, place.dtype, data, values + place.start) for name, place in places.items()}
    return found if OF_FACES[0] in found else found | _of_no_face(pixel_length(len(found["video_latent"])))


def _of_no_face(pixels: int) -> dict[str, np.ndarray]:
    rows = {"structure": pixels, "audio": 2 * pixels, "mouth_boxes": pixels}
    return {name: np.empty((count, 0), _TYPES[_CODES[DTYPES[name]]]) for name, count in rows.items()}


@lru_cache(maxsize=1024)
def parse_header(header: bytes, size: int) -> dict[str, TensorPlace]:
    """Where the tensors of a clip lie in the ``size`` bytes after this header.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the header is not one of a sample.
    """
    document = json.loads(header)
    needed = (*REQUIRED, *OF_FACES) if any(name in document for name in OF_FACES) else REQUIRED
    missing = [name for name in needed if name not in document]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    places = {name: _place(name, document[name], size) for name in TAKEN if name in document}
    _check_shapes({name: place.shape for name, place in places.items()})
    return places


def _place(name: str, entry: dict, size: int) -> TensorPlace:
    code, shape = _CODES[DTYPES[name]], tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if entry["dtype"] != code:
        raise ValueError(f"{name} is {entry['dtype']}, wanted {code}")
    if not all(type(value) is int and value > 0 for value in shape):
        raise ValueError(f"{name} has shape {shape}")
    dtype = _TYPES[code]
    if not (type(start) is int and 0 <= start <= end <= size and end - start == math.prod(shape) * dtype.itemsize):
        raise ValueError(f"{name} does not lie in the file")
    return TensorPlace(dtype, shape, start)


def _check_shapes(shapes: dict[str, tuple[int, ...]]) -> None:
    """Shapes must agree with each other as `df_data.format.sample` lists them."""
    latents, _, height, width = shapes["video_latent"]
    pixels, images = pixel_length(latents), shapes["reference_frames"][0]
    wanted = {
        "video_latent": (latents, LATENT_CHANNELS, height, width),
        "structure": (pixels, None),
        "flame": (pixels, FLAME_159.dim),
        "audio": (2 * pixels, None),
        "mouth_boxes": (pixels, 4),
        "reference_frames": (images,),
        "reference_latents": (images, LATENT_CHANNELS, height, width),
        "reference_features": (images, None, None),
        "text_features": (None, None),
    }
    for name, shape in shapes.items():
        if len(shape) != len(wanted[name]) or any(b not in (None, a) for a, b in zip(shape, wanted[name])):
            raise ValueError(f"{name} has shape {shape}, wanted {wanted[name]}")
    if shapes.get("text_features", (0,))[0] > TEXT_TOKENS:
        raise ValueError(f"text_features has {shapes['text_features'][0]} rows, a text at most {TEXT_TOKENS}")
