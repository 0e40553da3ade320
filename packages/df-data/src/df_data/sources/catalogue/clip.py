"""One clip of a published dataset: which video, from when to when, which part of the image, who, under what terms."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from df_models.settings import FrozenModel

PLAIN_NAME = r"^[A-Za-z0-9_-]{1,120}$"
"""What an id from outside must look like before it becomes part of a file name."""
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_YOUTUBE_HOSTS = ("youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com")
LONGEST_VIDEO_S = 24 * 3600.0
MOST_OF_A_CAPTION = 4000
"""Characters; a text encoder reads 512 tokens, fewer than that many letters in any writing."""


def one_line(text: str) -> str:
    """Return words with single spaces between them.

    Raises:
        ValueError: there are none, or too many.
    """
    words = " ".join(text.split())
    if not words or len(words) > MOST_OF_A_CAPTION or any(unicodedata.category(letter) == "Cc" for letter in words):
        raise ValueError(f"a caption has 1 to {MOST_OF_A_CAPTION} characters, none of them a control character")
    return words


Caption = Annotated[str, AfterValidator(one_line)]


class ListedCrop(FrozenModel):
    """A part of the upright image.

    Attributes:
        left, top, right, bottom: edges, in units of the reference size.
        reference_width, reference_height: the size that the edges are meant for: 1 and 1 for normalised edges. Without
            a width the image is scaled alike in both directions, without either the edges are pixels as they are.
    """

    left: float = Field(ge=0, le=20_000, allow_inf_nan=False)
    top: float = Field(ge=0, le=20_000, allow_inf_nan=False)
    right: float = Field(ge=0, le=20_000, allow_inf_nan=False)
    bottom: float = Field(ge=0, le=20_000, allow_inf_nan=False)
    reference_width: float | None = Field(default=None, gt=0, le=20_000)
    reference_height: float | None = Field(default=None, gt=0, le=20_000)

    @model_validator(mode="after")
    def _not_empty(self) -> ListedCrop:
        if self.right <= self.left or self.bottom <= self.top:
            raise ValueError("a crop box needs left < right and top < bottom")
        return self

    def pixels(self, width: int, height: int, expand: float = 1.0) -> tuple[int, int, int, int]:
        """Return (x, y, width, height) in an image of this size, all even, cut off at the image's edges.

        Even, so that the colour planes of 4:2:0 video are cut at whole samples.

        Args:
            expand: the box is enlarged by this factor about its centre.

        Raises:
            ValueError: nothing of the box lies in the image.
        """
        y_scale = height / self.reference_height if self.reference_height else 1.0
        x_scale = width / self.reference_width if self.reference_width else y_scale
        x0, x1 = _grown(self.left * x_scale, self.right * x_scale, expand, width)
        y0, y1 = _grown(self.top * y_scale, self.bottom * y_scale, expand, height)
        if x1 - x0 < 2 or y1 - y0 < 2:
            raise ValueError(f"the crop lies outside the image of {width}x{height}")
        return x0, y0, x1 - x0, y1 - y0


def _grown(low: float, high: float, factor: float, limit: int) -> tuple[int, int]:
    middle, half = (low + high) / 2, (high - low) / 2 * factor
    even_limit = limit // 2 * 2
    return (
        min(even_limit, max(0, round((middle - half) / 2) * 2)),
        min(even_limit, max(0, round((middle + half) / 2) * 2)),
    )


class CatalogueClip(FrozenModel):
    """One clip as a dataset's own lists give it.

    Attributes:
        clip: its id, unique in the dataset and safe as a file name.
        dataset: name of the dataset.
        url: the page or file that holds the video, or None for one that lies in a folder.
        path: the file in a folder, or None.
        start_s, end_s: seconds on the video's own clock; an end of None is the end of the video.
        crop: part of the image, or None for all of it.
        person: who is seen, where the lists say so; unique in the dataset.
        licence: terms that the dataset is published under.
        caption: words that describe the clip, where the lists have some; white space in it is made single spaces.
        provenance: where this entry stands and what else it says (strings and numbers).
    """

    clip: str = Field(pattern=PLAIN_NAME)
    dataset: str = Field(pattern=PLAIN_NAME)
    url: str | None = None
    path: Path | None = None
    start_s: float = Field(default=0.0, ge=0, le=LONGEST_VIDEO_S, allow_inf_nan=False)
    end_s: float | None = Field(default=None, gt=0, le=LONGEST_VIDEO_S, allow_inf_nan=False)
    crop: ListedCrop | None = None
    person: str | None = Field(default=None, pattern=PLAIN_NAME)
    licence: str
    caption: Caption | None = None
    provenance: dict[str, str | int | float] = Field(default_factory=dict)

    @field_validator("url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        return None if value is None else canonical_url(value)

    @model_validator(mode="after")
    def _whole(self) -> CatalogueClip:
        if (self.url is None) == (self.path is None):
            raise ValueError("a clip has either a url or a path")
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError("a clip ends after it starts")
        return self

    @property
    def video(self) -> str:
        """Name of the video that the clip is cut from, safe as a file name."""
        return video_key(self.url or str(self.path))

    @property
    def seconds(self) -> float | None:
        """Length, where the lists say it."""
        return None if self.end_s is None else self.end_s - self.start_s


@dataclass(frozen=True)
class BadEntry:
    """A line or record of a list that cannot be used.

    Attributes:
        file: name of the list.
        place: ``line 3``, or the key of a record.
        problem: what is wrong with it.
    """

    file: str
    place: str
    problem: str

    def __str__(self) -> str:
        """Return it for a person."""
        return f"{self.file}, {self.place}: {self.problem}"


@dataclass(frozen=True)
class Catalogue:
    """What a dataset's lists hold: clips in the order of the lists, and the entries that cannot be used."""

    dataset: str
    licence: str
    clips: tuple[CatalogueClip, ...]
    bad: tuple[BadEntry, ...] = ()

    @property
    def local(self) -> bool:
        """Whether the videos lie in a folder already."""
        return bool(self.clips) and all(clip.path is not None for clip in self.clips)

    def videos(self) -> dict[str, tuple[CatalogueClip, ...]]:
        """Return the clips by video, each in the order of the lists."""
        found: dict[str, list[CatalogueClip]] = {}
        for clip in self.clips:
            found.setdefault(clip.video, []).append(clip)
        return {video: tuple(clips) for video, clips in found.items()}


def canonical_url(text: str) -> str:
    """Return a web address as it is fetched; every address of one YouTube video becomes the same.

    Raises:
        ValueError: not http or https, no host, a name and password in it, or characters that no address holds.
    """
    if len(text) > 2000 or any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("a web address holds no white space or control characters and at most 2000 characters")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a web address begins with http:// or https:// and names a host")
    if "@" in parts.netloc:
        raise ValueError("a web address must not carry a name or password")
    found = _youtube_id(parts.hostname, parts.path, parts.query)
    return f"https://www.youtube.com/watch?v={found}" if found else text


def youtube_url(video: str) -> str:
    """Return the address of a YouTube video.

    Raises:
        ValueError: not an id of eleven letters, digits, ``-`` and ``_``.
    """
    if not _YOUTUBE_ID.fullmatch(video):
        raise ValueError(f"{video[:40]!r} is no YouTube id (eleven letters, digits, '-' or '_')")
    return f"https://www.youtube.com/watch?v={video}"


def video_key(url: str) -> str:
    """Return a name for the video at a web address: its YouTube id, or the beginning of the address's sha256."""
    parts = urlsplit(url)
    found = _youtube_id(parts.hostname or "", parts.path, parts.query)
    return f"yt_{found}" if found else f"web_{hashlib.sha256(url.encode()).hexdigest()[:20]}"


def _youtube_id(host: str, path: str, query: str) -> str | None:
    """The id in ``watch?v=ID``, ``youtu.be/ID``, ``/shorts/ID`` and ``/embed/ID``."""
    if host == "youtu.be":
        found = path.strip("/")
    elif host not in _YOUTUBE_HOSTS:
        return None
    elif path == "/watch":
        found = parse_qs(query).get("v", [""])[0]
    else:
        found = re.sub(r"^/(?:shorts|embed)/", "", path).strip("/")
    return found if _YOUTUBE_ID.fullmatch(found) else None
