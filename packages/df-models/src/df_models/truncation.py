"""Whether a file's end is missing, by what its container says of its length.

Told of MP4 and MOV (ISO/IEC 14496-12: boxes with their lengths), of Matroska and WebM (RFC 9559, elements of EBML,
RFC 8794) and of FLV that breaks off within a tag (Adobe's Video File Format 10.1, annex E). A transport stream has
neither an end nor a length, and a Matroska file that was written to a pipe, or whose recorder died, says that its
length is unknown: of those nothing can be told.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

ISO_BEGINS = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide")
"""Boxes that an MP4 or MOV file begins with."""
MEDIA_BOXES = (b"moov", b"moof", b"mdat")
"""Boxes without all of which images are missing."""
EBML, SEGMENT, CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
"""Identifiers of a Matroska file's head, of all that follows it, and of a piece of its media in that."""
FLV = b"FLV\x01"
TAG_TYPE, TAGS = 0x1F, (8, 9, 18)
"""Bits of a tag that hold its type: audio, video, script data."""
MOST_PARTS = 1_000_000
"""Boxes, elements or tags that are looked at: an hour of MP4 in fragments has some thousand, one of FLV 250 000."""


def is_cut_off(path: str | Path) -> bool:
    """Whether the end of a file is missing, and images or audio with it; False where the container does not tell."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            misses = {EBML: _elements_miss, FLV: _tags_miss}.get(file.read(4), _boxes_miss)
            return misses(file, size)
    except OSError:
        return False


def _boxes_miss(file: BinaryIO, size: int) -> bool:
    """Whether a box of an MP4's media reaches beyond its end, or no box tells of its streams."""
    at, told, name = 0, False, b""
    for count in range(MOST_PARTS):
        file.seek(at)
        head = file.read(16)
        name = head[4:8]
        if count == 0 and name not in ISO_BEGINS:
            return False
        if len(head) < 8:
            break
        told = told or name == b"moov"
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # to the end of the file
            break
        if length < 8:  # no box: damaged otherwise
            return False
        at += length
        if at >= size:
            break
    return (at > size and name in MEDIA_BOXES) or not told  # what stands behind the media may be anything


def _elements_miss(file: BinaryIO, size: int) -> bool:
    """Whether a Matroska file ends before its segment does, with a cluster or where more of them may have followed."""
    head = _element(file, 0)
    if head is None or head[2] is None:
        return False
    segment = _element(file, head[1] + head[2])
    if segment is None or segment[0] != SEGMENT or segment[2] is None or segment[1] + segment[2] <= size:
        return False
    at = segment[1]
    for _ in range(MOST_PARTS):
        part = _element(file, at)
        if part is None or part[2] is None:  # the file ends here, or its clusters do not tell their lengths
            return True
        if part[1] + part[2] > size:
            return part[0] == CLUSTER  # else it is an index or the like, behind all media
        at = part[1] + part[2]
    return True


def _tags_miss(file: BinaryIO, size: int) -> bool:
    """Whether a tag of an FLV file, or its head of 11 bytes, reaches beyond its end; its length, 4 bytes, follows it.

    What begins with none of a tag's types (Adobe, Video File Format Specification 10.1, annex E.4.1) is padding.
    """
    file.seek(5)
    at = int.from_bytes(file.read(4), "big") + 4
    for _ in range(MOST_PARTS):
        file.seek(at)
        head = file.read(11)
        if not head or head[0] & TAG_TYPE not in TAGS:
            return False
        at += 11 + int.from_bytes(head[1:4], "big")
        if len(head) < 11 or at > size:
            return True
        at += 4
    return False


def _element(file: BinaryIO, at: int) -> tuple[bytes, int, int | None] | None:
    """Return an element's identifier, where its data begin and how long they are; None where there is none.

    The length is None if it is unknown: all its bits are ones (RFC 8794, section 6.2).
    """
    file.seek(at)
    head = file.read(12)
    name = _width(head, 4)
    width = _width(head[name:], 8) if name else 0
    if not width:
        return None
    value = int.from_bytes(head[name : name + width], "big") & ((1 << 7 * width) - 1)
    return head[:name], at + name + width, None if value == (1 << 7 * width) - 1 else value


def _width(data: bytes, most: int) -> int:
    """Return how many bytes a number of EBML has, told by the zeros before its first one; 0 where it is none."""
    width = 9 - data[0].bit_length() if data and data[0] else 0
    return width if width <= min(most, len(data)) else 0
