"""`df-data plan`: what a fetch would do, and what it needs. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass

from df_data.common.wording import counted
from df_data.fetch.config import FetchConfig
from df_data.fetch.run import chosen_videos, clip_path
from df_data.fetch.ytdlp import INSTALL, JS_RUNTIMES
from df_data.sources.catalogue import BadEntry, Catalogue, CatalogueClip
from df_data.sources.catalogue.layouts import SUFFIXES
from df_data.sources.records import JOURNAL_NAME, Journal, is_fetched

ASSUMED_MBIT = {360: 0.7, 720: 2.2, 1080: 4.0, 2160: 16.0}
"""Megabits a second of images and audio together, by height: an assumption, of the order that video sites send."""
SHOWN = 5


@dataclass(frozen=True)
class Tool:
    """Something that a fetch needs: whether it is there, and how to get it if not."""

    name: str
    present: bool
    hint: str


@dataclass(frozen=True)
class Plan:
    """What there is to fetch.

    Attributes:
        dataset, licence: of the lists.
        local: the videos lie in a folder already; there is nothing to fetch.
        videos, clips: numbers.
        hours: length of the clips whose ends are listed.
        open_clips: clips without a listed end, which ``hours`` does not count.
        watched_hours: from each video's beginning to the end of its last clip; at least so much is downloaded.
        persons: people that the lists name; ``clips_without_person`` are of someone they do not.
        there: clips that are in the output directory.
        dead, later: videos recorded as gone, or as to be tried again.
        refused: clips recorded as impossible to cut.
        bad: entries of the lists that cannot be used.
        tools: what a fetch needs.
        sample: the first clips.
    """

    dataset: str
    licence: str
    local: bool
    videos: int
    clips: int
    hours: float
    open_clips: int
    watched_hours: float
    persons: int
    clips_without_person: int
    there: int
    dead: dict[str, int]
    later: dict[str, int]
    refused: dict[str, int]
    bad: tuple[BadEntry, ...]
    tools: tuple[Tool, ...]
    sample: tuple[CatalogueClip, ...]

    @property
    def gigabytes(self) -> dict[int, float]:
        """What is downloaded at least, by height, at ``ASSUMED_MBIT``."""
        return {height: self.watched_hours * 3600 * mbit / 8000 for height, mbit in ASSUMED_MBIT.items()}

    def __str__(self) -> str:
        """Return the plan for a person."""
        by = "folders" if self.local else "lists"
        lines = [
            f"{self.dataset}: {counted(self.clips, 'clip')} of {counted(self.videos, 'video')}, {self._length()}",
            f"  licence: {self.licence}",
            f"  persons: {self.persons} named by the {by}"
            + (
                f", {counted(self.clips_without_person, 'clip')} of someone they do not name"
                if self.clips_without_person
                else ""
            ),
        ]
        lines += ["  nothing to fetch: these are files already"] if self.local else self._to_fetch()
        lines += [f"  unusable entries: {len(self.bad)}"] if self.bad else []
        lines += [f"    {bad}" for bad in self.bad[:SHOWN]]
        lines += [f"    ... and {len(self.bad) - SHOWN} more"] if len(self.bad) > SHOWN else []
        lines += ["  the first clips:", *(f"    {_clip_line(clip)}" for clip in self.sample)]
        return "\n".join(lines)

    def _length(self) -> str:
        if self.open_clips == self.clips > 0:
            return "whole files, whose lengths df-data build measures" if self.local else "of unlisted length"
        unknown = f" and {self.open_clips} of unknown length" if self.open_clips else ""
        return f"{self.hours:.1f} h{unknown}"

    def _to_fetch(self) -> list[str]:
        sizes = ", ".join(f"{size:.0f} GB at {height}p" for height, size in self.gigabytes.items())
        rates = ", ".join(f"{mbit:g} at {height}p" for height, mbit in ASSUMED_MBIT.items())
        return [
            f"  download, at least: {sizes}",
            f"    (videos up to their last listed clip, {self.watched_hours:.1f} h; assuming {rates} Mbit/s)",
            f"  there already: {counted(self.there, 'clip')}",
            *(f"  dead: {counted(number, 'video')}: {reason}" for reason, number in self.dead.items()),
            *(f"  to be tried again: {counted(number, 'video')}: {reason}" for reason, number in self.later.items()),
            *(f"  refused: {counted(number, 'clip')}: {reason}" for reason, number in self.refused.items()),
            *(f"  {tool.name}: {'there' if tool.present else 'MISSING; ' + tool.hint}" for tool in self.tools),
        ]


def make_plan(config: FetchConfig, catalogue: Catalogue) -> Plan:
    """Return what fetching these clips takes.

    Raises:
        UserError: the output directory's journal is damaged.
    """
    videos = chosen_videos(catalogue, config)
    clips = [clip for clips in videos.values() for clip in clips]
    out = config.out.path if config.out else None
    journal = Journal(out / JOURNAL_NAME, mend=False) if out else None
    lengths = [clip.seconds for clip in clips if clip.seconds is not None]
    last_ends = [max((clip.end_s or 0.0) for clip in group) for group in videos.values()]
    return Plan(
        dataset=catalogue.dataset,
        licence=catalogue.licence,
        local=catalogue.local,
        videos=len(videos),
        clips=len(clips),
        hours=sum(lengths) / 3600,
        open_clips=len(clips) - len(lengths),
        watched_hours=sum(last_ends) / 3600,
        persons=len({clip.person for clip in clips if clip.person}),
        clips_without_person=sum(clip.person is None for clip in clips),
        there=sum(is_fetched(clip_path(out, clip)) for clip in clips) if out else 0,
        dead=journal.reasons("dead") if journal else {},
        later=journal.reasons("later") if journal else {},
        refused=journal.reasons("refused") if journal else {},
        bad=catalogue.bad,
        tools=needed_tools(clips),
        sample=tuple(clips[:SHOWN]),
    )


def is_plain_file(url: str) -> bool:
    """Return whether an address names a video file itself, rather than a page that shows one."""
    return url.split("?")[0].lower().endswith(SUFFIXES)


def needed_tools(clips: list[CatalogueClip]) -> tuple[Tool, ...]:
    """Return what downloading these clips needs beyond this package."""
    pages = [clip.url for clip in clips if clip.url and not is_plain_file(clip.url)]
    tools = []
    if pages:
        tools.append(Tool("yt-dlp", importlib.util.find_spec("yt_dlp") is not None, INSTALL))
    if any(url.startswith("https://www.youtube.com/") for url in pages):
        present = any(shutil.which(name) for name in JS_RUNTIMES)
        hint = "without one YouTube offers few formats or none; install deno (https://deno.com)"
        tools.append(Tool(f"JavaScript runtime ({', '.join(JS_RUNTIMES)})", present, hint))
    return tuple(tools)


def _clip_line(clip: CatalogueClip) -> str:
    start = f"{clip.start_s:g}"
    span = f"{start}-{clip.end_s:g} s" if clip.end_s else f"{start} s to the end" if clip.start_s else "whole"
    where = clip.url or (clip.path.name if clip.path else "")
    box = clip.crop
    crop = f", crop {box.left:g},{box.top:g}-{box.right:g},{box.bottom:g}" if box else ""
    return f"{clip.clip}: {where}, {span}{crop}, {clip.person or 'person not named'}"
