"""What a fetch writes down: a sidecar beside every clip, and a journal of what became of every video.

The sidecar is written after its clip and says how to know it: a clip without one is not there. The journal is
append-only; a last line torn by a kill is cut off.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from df_data.sources.catalogue.clip import PLAIN_NAME, Caption
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import FrozenModel

SIDECAR_VERSION = 1
Pixels = Annotated[int, Field(ge=-(1 << 31), le=1 << 31)]
JOURNAL_NAME = "journal.jsonl"
CLIP_SUFFIX = ".mp4"


class Sidecar(FrozenModel):
    """``<clip>.json``: where a clip comes from and under what terms.

    Attributes:
        clip, dataset, url, licence: as in the catalogue.
        person: who is seen; the video's name where the lists do not say.
        person_listed: whether the lists say so.
        video_licence: what the site says of the video's own licence, if anything.
        listed_start_s, listed_end_s: the times that the lists give.
        start_s, end_s: the clip's first image, and the end of its last, on the video's clock.
        crop: x, y, width, height in pixels of the source, or None for all of it.
        source_width, source_height: size of the source's upright image.
        frames: images in the clip.
        sound_rate: samples a second, None for a silent source.
        caption: words that describe the clip, where the lists have some.
        tool: name and version of what downloaded the video.
        settings: settings of the fetch that changed the bytes.
        bytes, sha256: of the clip's file.
        provenance: what else the lists say.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    version: int = SIDECAR_VERSION
    clip: str = Field(pattern=PLAIN_NAME)
    dataset: str = Field(pattern=PLAIN_NAME)
    url: str
    licence: str
    person: str = Field(pattern=r"^[A-Za-z0-9_-]{1,200}$")
    person_listed: bool
    video_licence: str | None = None
    listed_start_s: float
    listed_end_s: float | None
    start_s: float
    end_s: float
    crop: tuple[Pixels, Pixels, Pixels, Pixels] | None
    source_width: int
    source_height: int
    frames: int
    sound_rate: int | None
    caption: Caption | None = None
    tool: str
    settings: dict[str, str | int | float] = Field(default_factory=dict)
    bytes: int
    sha256: str
    provenance: dict[str, str | int | float] = Field(default_factory=dict)


def sidecar_path(clip: Path) -> Path:
    """Return the place of a clip's sidecar."""
    return clip.with_suffix(".json")


def read_sidecar(clip: Path) -> Sidecar:
    """Return the sidecar of a clip's file.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = sidecar_path(clip)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a plain file; delete it and fetch again")
        found = Sidecar.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{clip} has no sidecar {path.name}; fetch it again, or set `identity` to another rule"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: damaged: {place}: {first['msg']}; delete it and fetch again") from error
    if found.version != SIDECAR_VERSION:
        raise UserError(f"{path}: version {found.version}, this program reads {SIDECAR_VERSION}")
    return found


def write_sidecar(clip: Path, sidecar: Sidecar) -> None:
    """Write a clip's sidecar atomically; equal sidecars give equal bytes."""
    text = json.dumps(_written(sidecar), sort_keys=True, indent=1, ensure_ascii=False)
    atomic_write(sidecar_path(clip), text + "\n")


def _written(sidecar: Sidecar) -> dict[str, Any]:
    """What a sidecar's file holds: a caption only where there is one, as before there were any."""
    return sidecar.model_dump(mode="json", exclude={"caption"} if sidecar.caption is None else None)


def is_fetched(clip: Path) -> bool:
    """Return whether a clip and its sidecar are there and of one size (its hash is not read)."""
    try:
        return clip.stat().st_size == read_sidecar(clip).bytes
    except (OSError, UserError):
        return False


FetchOutcome = Literal["fetched", "dead", "later", "refused"]


class JournalEntry(FrozenModel):
    """What became of a video or a clip.

    Attributes:
        name: ``video/<key>`` or ``clip/<id>``.
        url: of the video.
        outcome: `fetched` (all its clips are cut or refused), `dead` (gone for good), `later` (a passing reason, tried
            again by the next run), `refused` (a clip that cannot be cut from this video).
        reason: short machine-readable name.
        detail: one line.
        tries: tries of this run.
        at: time of the record, UTC, ISO 8601.
    """

    name: str
    url: str
    outcome: FetchOutcome
    reason: str | None = None
    detail: str | None = None
    tries: int = 0
    at: str = ""


class Journal:
    """An append-only JSONL file; the last line of a name counts.

    Raises:
        UserError: a line other than the last is damaged.
    """

    def __init__(self, path: Path, *, mend: bool = True) -> None:
        self.path = path
        self.entries: dict[str, JournalEntry] = {}
        if path.exists():
            self._read(mend)

    def _read(self, mend: bool) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = JournalEntry.model_validate_json(line)
            except ValidationError as error:
                raise UserError(f"{self.path}: line {number} is damaged; delete that line") from error
            self.entries[entry.name] = entry
        if mend and len(whole) < len(data):
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))
                os.fsync(file.fileno())

    def record(self, entry: JournalEntry) -> None:
        """Append one entry, with an fsync."""
        line = json.dumps(entry.model_dump(mode="json", exclude_none=True), sort_keys=True, ensure_ascii=False)
        with open(self.path, "ab") as file:
            file.write(line.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries[entry.name] = entry

    def outcome(self, name: str) -> FetchOutcome | None:
        """The last outcome of a video or clip, or None."""
        entry = self.entries.get(name)
        return entry.outcome if entry else None

    def reasons(self, outcome: FetchOutcome) -> dict[str, int]:
        """Number of entries of an outcome by reason, most frequent first."""
        found = Counter(entry.reason or "" for entry in self.entries.values() if entry.outcome == outcome)
        return dict(found.most_common())
