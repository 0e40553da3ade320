"""`df-data fetch`: download the videos of a dataset, cut their clips, and write down what became of each.

One video after the other: download, cut all its clips, record it, delete it. Whatever moment it is killed at, the next
run goes on: a clip is there when its sidecar is, a part of a download is continued.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from df_data.common.wording import counted
from df_data.fetch.config import FetchConfig
from df_data.fetch.cut import BrokenVideo, Cut, CutRefused, cut_clip
from df_data.fetch.download import Downloaded, Downloader, DownloadFailed, Gone, Passing
from df_data.sources.catalogue import Catalogue, CatalogueClip
from df_data.sources.catalogue.pieces import into_pieces
from df_data.sources.records import (
    CLIP_SUFFIX,
    JOURNAL_NAME,
    Journal,
    JournalEntry,
    Sidecar,
    is_fetched,
    write_sidecar,
)
from df_models.errors import UserError
from df_models.files import atomic_write, check_output_directory, remove_leftovers, safe_join, sha256_file
from df_models.locks import one_writer

CLIPS, RAW = "clips", "raw"
_WHOLE = "whole.json"


@dataclass(frozen=True)
class FetchSummary:
    """What a fetch ended with.

    Attributes:
        out: the directory.
        clips: clips that are there now, of ``listed``.
        new: clips that this run cut.
        dead, later, refused: videos that are gone, videos to try again, clips that cannot be cut, by reason.
        stopped: why the run ended early, if it did.
        elapsed: seconds that this run took.
    """

    out: Path
    listed: int
    clips: int
    new: int
    dead: dict[str, int]
    later: dict[str, int]
    refused: dict[str, int]
    stopped: str | None
    elapsed: float

    def __str__(self) -> str:
        """Return the summary for a person."""
        lines = [
            f"{self.out}: {self.clips} of {counted(self.listed, 'clip')}, {self.new} of them new",
            *(f"  dead: {counted(number, 'video')}: {reason}" for reason, number in self.dead.items()),
            *(f"  to be tried again: {counted(number, 'video')}: {reason}" for reason, number in self.later.items()),
            *(f"  refused: {counted(number, 'clip')}: {reason}" for reason, number in self.refused.items()),
            *([f"  stopped early: {self.stopped}"] if self.stopped else []),
            f"  what became of each: {self.out / JOURNAL_NAME} (this run took {self.elapsed:.0f} s)",
        ]
        return "\n".join(lines)


def fetch(
    config: FetchConfig,
    catalogue: Catalogue,
    downloader_for: Callable[[str], Downloader],
    *,
    progress: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> FetchSummary:
    """Fetch what is not there yet.

    Args:
        downloader_for: gives the downloader for an address.

    Raises:
        UserError: nowhere to write to, a dataset of local files, or another fetch is writing there.
        OSError: the disk is full.
    """
    if config.out is None:
        raise UserError("give the directory to write to with --out")
    if catalogue.local:
        raise UserError(f"{catalogue.dataset} lies on your disk already: name its folder as a source of df-data build")
    out = config.out.path
    check_output_directory(out, inputs=[config.lists.path])
    with one_writer(out, "df-data fetch"):
        return _Run(config, catalogue, downloader_for, out, sleep).all(progress)


def chosen_videos(catalogue: Catalogue, config: FetchConfig) -> dict[str, tuple[CatalogueClip, ...]]:
    """Return the clips that the config asks for, by video, in pieces where it wants them."""
    first = list(catalogue.videos().items())[: config.limit]
    return {key: tuple(piece for clip in clips for piece in into_pieces(clip, config.piece_s)) for key, clips in first}


def clip_path(out: Path, clip: CatalogueClip) -> Path:
    """Return a clip's place."""
    return safe_join(out / CLIPS, clip.clip + CLIP_SUFFIX)


class _Run:
    """One run of a fetch, in a directory that is locked."""

    def __init__(
        self,
        config: FetchConfig,
        catalogue: Catalogue,
        downloader_for: Callable[[str], Downloader],
        out: Path,
        sleep: Callable[[float], None],
    ) -> None:
        self.config, self.out = config, out
        self.videos = chosen_videos(catalogue, config)
        self.downloader_for, self.sleep = downloader_for, sleep
        self.journal = Journal(out / JOURNAL_NAME)
        self.new = 0
        (out / CLIPS).mkdir(exist_ok=True)
        remove_leftovers(out / CLIPS)

    def all(self, progress: bool) -> FetchSummary:
        """Fetch every video that is wanted; end early when one after the other fails."""
        started, asked, failures, stopped = time.monotonic(), 0, 0, None
        with (
            self._without_empty_raw(),
            tqdm(total=len(self.videos), desc="videos", unit="video", disable=not progress) as bar,
        ):
            for key, clips in self.videos.items():
                if todo := self.todo(key, clips):
                    if asked:
                        self.sleep(self.config.pause_s)
                    asked += 1
                    outcome = self.video(key, clips, todo, bar)
                    failures = failures + 1 if outcome == "later" else 0
                else:
                    self._finish(key, clips)
                bar.set_postfix_str(f"{self.new} clips, {self._count('dead')} dead, {self._count('later')} later")
                bar.update()
                if failures >= self.config.stop_after:
                    stopped = f"{failures} videos in a row failed for a passing reason; run the command again later"
                    break
        return self._summary(time.monotonic() - started, stopped)

    @contextlib.contextmanager
    def _without_empty_raw(self) -> Iterator[None]:
        """Remove the folders of downloads of which nothing came, however the run ends."""
        try:
            yield
        finally:
            raw = self.out / RAW
            for folder in [*raw.glob("*/"), raw]:
                with contextlib.suppress(OSError):  # it is not empty, or not there
                    folder.rmdir()

    def todo(self, key: str, clips: tuple[CatalogueClip, ...]) -> list[CatalogueClip]:
        """The clips of a video that are still to be made; none of a dead one."""
        if self.journal.outcome(f"video/{key}") == "dead" and not self.config.retry_dead:
            return []
        return [
            clip
            for clip in clips
            if self.journal.outcome(f"clip/{clip.clip}") != "refused" and not is_fetched(clip_path(self.out, clip))
        ]

    def _finish(self, key: str, clips: tuple[CatalogueClip, ...]) -> None:
        """Do what a run that was killed after a video's last clip left undone: delete the download, record the video.

        The download of a video that is recorded stays: a run with ``keep_raw`` kept it.
        """
        if self.journal.outcome(f"video/{key}") in ("fetched", "dead"):
            return
        if not self.config.keep_raw:
            shutil.rmtree(self.out / RAW / key, ignore_errors=True)
        self._record(f"video/{key}", str(clips[0].url), "fetched", None, 1)

    def video(self, key: str, clips: tuple[CatalogueClip, ...], todo: list[CatalogueClip], bar: tqdm) -> str:
        """Download one video and cut its clips; return and record its outcome."""
        url, folder = str(clips[0].url), self.out / RAW / key
        folder.mkdir(parents=True, exist_ok=True)
        tries = 0
        while True:
            tries += 1
            try:
                downloaded = self._download(url, folder, bar)
                self._cut(downloaded, folder, todo)
            except Gone as gone:
                shutil.rmtree(folder)
                return self._record(f"video/{key}", url, "dead", gone, tries)
            except (Passing, BrokenVideo) as error:
                problem = error if isinstance(error, Passing) else _begun_again(folder, error)
                if tries >= self.config.attempts:
                    return self._record(f"video/{key}", url, "later", problem, tries)
                self.sleep(self._wait(problem, tries))
                continue
            if not self.config.keep_raw:
                shutil.rmtree(folder)
            return self._record(f"video/{key}", url, "fetched", None, tries)

    def _download(self, url: str, folder: Path, bar: tqdm) -> Downloaded:
        """Return the video's files, those of an earlier run if they are whole."""
        whole = folder / _WHOLE
        if (found := _whole(whole, folder)) is not None:
            return found
        received = 0

        def told(count: int) -> None:
            nonlocal received
            before, received = received, received + count
            if before // 10**6 != received // 10**6:
                bar.set_description_str(f"{folder.name} {received / 1e6:.0f} MB")

        downloaded = self.downloader_for(url).download(url, folder, told)
        atomic_write(whole, downloaded.model_dump_json())
        return downloaded

    def _cut(self, downloaded: Downloaded, folder: Path, todo: list[CatalogueClip]) -> None:
        video = safe_join(folder, downloaded.video)
        audio = safe_join(folder, downloaded.audio) if downloaded.audio else None
        for clip in todo:
            target = clip_path(self.out, clip)
            if is_fetched(target) or self.journal.outcome(f"clip/{clip.clip}") == "refused":
                continue
            try:
                cut = cut_clip(video, audio, clip, target, crf=self.config.crf, expand=self.config.expand)
            except CutRefused as refused:
                self._record(f"clip/{clip.clip}", str(clip.url), "refused", refused, 1)
                continue
            write_sidecar(target, self._sidecar(clip, cut, downloaded, target))
            self.new += 1

    def _sidecar(self, clip: CatalogueClip, cut: Cut, downloaded: Downloaded, target: Path) -> Sidecar:
        return Sidecar(
            clip=clip.clip,
            dataset=clip.dataset,
            url=str(clip.url),
            licence=clip.licence,
            person=f"{clip.dataset}_{clip.person or clip.video}",
            person_listed=clip.person is not None,
            video_licence=downloaded.video_licence,
            listed_start_s=clip.start_s,
            listed_end_s=clip.end_s,
            start_s=cut.start_s,
            end_s=cut.end_s,
            crop=cut.crop,
            source_width=cut.width,
            source_height=cut.height,
            frames=cut.frames,
            sound_rate=cut.sound_rate,
            caption=clip.caption,
            tool=downloaded.tool,
            settings={name: getattr(self.config, name) for name in ("crf", "expand", "max_height")},
            bytes=target.stat().st_size,
            sha256=sha256_file(target),
            provenance=clip.provenance,
        )

    def _wait(self, problem: DownloadFailed, tries: int) -> float:
        asked = problem.wait_s if isinstance(problem, Passing) else None
        return min(self.config.longest_wait_s, max(asked or 0.0, self.config.backoff_s * 2 ** (tries - 1)))

    def _record(
        self, name: str, url: str, outcome: str, problem: DownloadFailed | CutRefused | None, tries: int
    ) -> str:
        entry = {"name": name, "url": url, "outcome": outcome, "tries": tries}
        if problem is not None:
            entry |= {"reason": problem.reason, "detail": problem.detail}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.journal.record(JournalEntry.model_validate(entry | {"at": at}))
        return outcome

    def _count(self, outcome: str) -> int:
        return sum(self.journal.outcome(f"video/{key}") == outcome for key in self.videos)

    def _summary(self, elapsed: float, stopped: str | None) -> FetchSummary:
        clips = [clip for clips in self.videos.values() for clip in clips]
        return FetchSummary(
            out=self.out,
            listed=len(clips),
            clips=sum(is_fetched(clip_path(self.out, clip)) for clip in clips),
            new=self.new,
            dead=self.journal.reasons("dead"),
            later=self.journal.reasons("later"),
            refused=self.journal.reasons("refused"),
            stopped=stopped,
            elapsed=elapsed,
        )


def _begun_again(folder: Path, error: BrokenVideo) -> Passing:
    """Throw away a download that cannot be decoded, so that the next try begins from nothing."""
    for path in folder.iterdir():
        path.unlink()
    return Passing("broken_video", str(error))


def _whole(record: Path, folder: Path) -> Downloaded | None:
    """An earlier run's finished download, if its files are still there in full."""
    try:
        found = Downloaded.model_validate_json(record.read_bytes())
        names = [found.video, *([found.audio] if found.audio else [])]
        sizes = sum(safe_join(folder, name).stat().st_size for name in names)
    except (OSError, ValidationError):
        return None
    return found if sizes == found.bytes else None
