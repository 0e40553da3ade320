"""`df-data fetch` from lists to clips: resumed, journalled, locked, whole or absent; and what a build makes of them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from bad_server import Site
from listed_videos import make_clip, read_clip, tone, write_video

from df_data import cli
from df_data.fetch import cut as cut_module
from df_data.fetch import run as run_module
from df_data.fetch.config import FetchConfig
from df_data.fetch.download import Downloaded, Downloader, DownloadFailed, Gone, Passing, Progress, Throttle
from df_data.fetch.http import HttpDownloader
from df_data.fetch.plan import make_plan
from df_data.fetch.run import FetchSummary, fetch
from df_data.sources.catalogue import Catalogue, CatalogueClip, ListedCrop
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.sources.listing import list_inputs
from df_data.sources.records import Journal, JournalEntry, read_sidecar
from df_models.errors import UserError
from df_models.locks import one_writer

BOX = ListedCrop(left=40, top=10, right=120, bottom=90)


class Extractor:
    """A downloader in place of yt-dlp: images and audio in one file each, after the failures it was told of."""

    def __init__(self, *failures: DownloadFailed | BaseException | None, body: bytes | None = None) -> None:
        self.failures = list(failures)
        self.asked: list[str] = []
        self.body = body

    def download(self, url: str, folder: Path, progress: Progress) -> Downloaded:
        self.asked.append(url)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        times = np.arange(150) / 25
        video = write_video(folder / "v.mp4", times)
        if self.body is not None:
            video.write_bytes(self.body)
        audio = write_video(folder / "a.mkv", np.zeros(0), wave=tone(6.0), images=False)
        size = video.stat().st_size + audio.stat().st_size
        progress(size)
        return Downloaded(video="v.mp4", audio="a.mkv", bytes=size, tool="fake 1", video_licence="CC-BY")


def config(out: Path, **options: Any) -> FetchConfig:
    return FetchConfig(source="hdtf", lists="x", out=str(out), **{"pause_s": 0.5, "backoff_s": 2.0} | options)


def listed(*clips: CatalogueClip) -> Catalogue:
    return Catalogue("test", "CC0-1.0", clips)


def urls(count: int, clips: int = 1) -> Catalogue:
    made = [
        make_clip(1 + k, 2 + k, BOX, name=f"v{i}_{k}", url=f"http://host/{i}.mp4", person=f"p{i % 2}")
        for i in range(count)
        for k in range(clips)
    ]
    return listed(*made)


def run(
    config: FetchConfig, catalogue: Catalogue, downloader: Downloader, slept: list[float] | None = None
) -> FetchSummary:
    slept = [] if slept is None else slept
    return fetch(config, catalogue, lambda url: downloader, progress=False, sleep=slept.append)


def tree(folder: Path) -> dict[str, str]:
    """sha256 of every clip and sidecar."""
    files = sorted((folder / "clips").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_clips_come_with_their_sidecars_and_no_raw_video_is_left(tmp_path: Path) -> None:
    slept: list[float] = []
    fake = Extractor()
    summary = run(config(tmp_path), urls(3, clips=2), fake, slept)
    assert (summary.clips, summary.new, summary.listed, summary.stopped) == (6, 6, 6, None)
    assert len(fake.asked) == 3 and slept == [0.5, 0.5] and not (tmp_path / "raw").exists()
    path = tmp_path / "clips" / "v1_1.mp4"
    read = read_clip(path)
    assert len(read.frames) == 25 and read.frames[0].shape == (80, 80, 3) and len(read.wave) == 44_100
    found = read_sidecar(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and found.bytes == path.stat().st_size
    assert (found.person, found.person_listed, found.licence, found.video_licence) == (
        "test_p1",
        True,
        "CC0-1.0",
        "CC-BY",
    )
    assert (found.listed_start_s, found.start_s, found.end_s, found.crop) == (2.0, 2.0, 3.0, (40, 10, 80, 80))
    assert (found.source_width, found.source_height, found.tool, found.url) == (160, 96, "fake 1", "http://host/1.mp4")
    entries = Journal(tmp_path / "journal.jsonl").entries
    assert {entry.outcome for entry in entries.values()} == {"fetched"} and all(entry.at for entry in entries.values())


def test_a_second_run_does_nothing_and_a_lost_clip_is_made_again(tmp_path: Path) -> None:
    run(config(tmp_path), urls(2), Extractor())
    before = tree(tmp_path)
    again = Extractor()
    assert run(config(tmp_path), urls(2), again).new == 0 and not again.asked
    (tmp_path / "clips" / "v0_0.json").unlink()
    (tmp_path / "clips" / "v1_0.mp4").write_bytes(b"half")
    assert run(config(tmp_path), urls(2), again).new == 2 and len(again.asked) == 2
    assert tree(tmp_path) == before


def test_dead_videos_are_not_asked_for_again_and_passing_ones_are(tmp_path: Path) -> None:
    fake = Extractor(Gone("private", "Private video"), *[Passing("connection", "cut")] * 4)
    summary = run(config(tmp_path), urls(3), fake)
    assert (summary.clips, summary.dead, summary.later) == (1, {"private": 1}, {"connection": 1})
    assert len(fake.asked) == 1 + 4 + 1
    again = Extractor()
    summary = run(config(tmp_path), urls(3), again)
    assert len(again.asked) == 1 and (summary.clips, summary.dead, summary.later) == (2, {"private": 1}, {})
    assert run(config(tmp_path, retry_dead=True), urls(3), again).clips == 3


def test_waits_grow_are_bounded_and_follow_the_server(tmp_path: Path) -> None:
    slept: list[float] = []
    failures = [Passing("a", ""), Passing("a", ""), Passing("http_429", "", wait_s=30.0), Passing("a", "", wait_s=9e9)]
    run(config(tmp_path, attempts=5, longest_wait_s=60.0), urls(1), Extractor(*failures), slept)
    assert slept == [2.0, 4.0, 30.0, 60.0]


def test_a_run_ends_early_when_nothing_works(tmp_path: Path) -> None:
    fake = Extractor(*[Passing("connection", "no network")] * 100)
    summary = run(config(tmp_path, attempts=2, stop_after=3), urls(50), fake)
    assert summary.stopped and len(fake.asked) == 6 and summary.later == {"connection": 3}
    assert not (tmp_path / "raw").exists(), "no empty folders stay"


def test_a_clip_that_cannot_be_cut_is_refused_once_and_its_neighbours_are_cut(tmp_path: Path) -> None:
    catalogue = listed(make_clip(0, 1, name="a"), make_clip(100, 101, name="b"), make_clip(2, 3, name="c"))
    fake = Extractor()
    summary = run(config(tmp_path), catalogue, fake)
    assert (summary.clips, summary.refused) == (2, {"outside_video": 1})
    run(config(tmp_path), catalogue, fake)
    assert len(fake.asked) == 1


def test_a_video_that_cannot_be_decoded_is_downloaded_anew_but_not_for_ever(tmp_path: Path) -> None:
    fake = Extractor(body=b"no video at all")
    summary = run(config(tmp_path, attempts=3), urls(1), fake)
    assert len(fake.asked) == 3 and summary.later == {"broken_video": 1} and not list((tmp_path / "clips").iterdir())


def test_a_whole_download_is_not_repeated_after_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Extractor()

    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("a fault of the program")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "cut_clip", broken)
        with pytest.raises(RuntimeError):
            run(config(tmp_path), urls(1), fake)
    assert run(config(tmp_path), urls(1), fake).new == 1 and len(fake.asked) == 1


def test_a_run_killed_after_the_last_clip_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between a video's last sidecar and the removal of its download once left the download for ever."""

    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config(tmp_path), urls(1), Extractor())
    assert (tmp_path / "raw").exists() and (tmp_path / "clips" / "v0_0.json").exists()
    again = Extractor()
    assert run(config(tmp_path), urls(1), again).new == 0 and not again.asked
    assert not (tmp_path / "raw").exists()
    videos = {name: e.outcome for name, e in Journal(tmp_path / "journal.jsonl").entries.items() if "video/" in name}
    assert list(videos.values()) == ["fetched"]


def test_limit_and_keep_raw(tmp_path: Path) -> None:
    summary = run(config(tmp_path, limit=2, keep_raw=True), urls(5), Extractor())
    assert summary.listed == 2 and len(list((tmp_path / "raw").iterdir())) == 2
    run(config(tmp_path, limit=2), urls(5), Extractor())
    assert len(list((tmp_path / "raw").iterdir())) == 2, "what an earlier run was told to keep stays"


def test_one_fetch_at_a_time_and_only_of_what_is_listed_by_address(tmp_path: Path) -> None:
    with one_writer(tmp_path, "df-data"), pytest.raises(UserError, match="another process"):
        run(config(tmp_path), urls(1), Extractor())
    local = CatalogueClip(clip="a", dataset="grid", path=Path("x.mp4"), licence="x")
    with pytest.raises(UserError, match="lies on your disk already"):
        run(config(tmp_path), listed(local), Extractor())
    with pytest.raises(UserError, match="--out"):
        run(FetchConfig(source="hdtf", lists="x"), urls(1), Extractor())


@pytest.mark.parametrize("name", ["../../v.mp4", "/etc/passwd", ".."])
def test_a_downloader_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    class Liar(Extractor):
        def download(self, url: str, folder: Path, progress: Progress) -> Downloaded:
            return super().download(url, folder, progress).model_copy(update={"video": name})

    with pytest.raises(UserError, match="unsafe name"):
        run(config(tmp_path), urls(1), Liar())


def test_a_torn_journal_line_is_cut_off_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.record(JournalEntry(name="video/a", url="u", outcome="dead", reason="private"))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"name": "vid')
    assert Journal(path, mend=False).outcome("video/a") == "dead" and path.read_bytes() != whole
    assert Journal(path).outcome("video/a") == "dead" and path.read_bytes() == whole
    path.write_bytes(b"x\n" + whole)
    with pytest.raises(UserError, match="line 1 is damaged"):
        Journal(path)


# -------------------- the disk, kills


def full_at(count: int) -> Callable[[Any, Any], None]:
    before = cut_module._ImageWriter.write

    def write(self: Any, frame: Any) -> None:
        if self.count == count:
            raise av.error.OSError(errno.ENOSPC, "No space left on device", "c.mp4")
        before(self, frame)

    return write


def write_lists(folder: Path, address: str, videos: int, clips: int = 1) -> None:
    """HDTF's lists of videos on this machine."""
    folder.mkdir(exist_ok=True)
    names = [f"Person{i}" for i in range(videos)]
    spans = " ".join(f"00:0{k}-00:0{k + 2}" for k in range(clips))
    rows = {
        "video_url": [f"{name} {address}/{i}.mp4" for i, name in enumerate(names)],
        "annotion_time": [f"{name}.mp4 {spans}" for name in names],
        "resolution": [f"{name}.mp4 96" for name in names],
        "crop_wh": [f"{name}_{k}.mp4 40 80 10 80" for name in names for k in range(clips)],
    }
    for kind, lines in rows.items():
        (folder / f"WDA_{kind}.txt").write_text("\n".join(lines) + "\n")


def command(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_the_command_on_a_full_disk(
    site: Site, tmp_path: Path, video_bytes: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lists(tmp_path / "lists", site.url, 2, clips=2)
    for i in range(2):
        site.put(f"/{i}.mp4", video_bytes)
    asked = ("fetch", "hdtf", "--lists", tmp_path / "lists", "--out", tmp_path / "out", "pause_s=0", "rate_limit=null")
    with monkeypatch.context() as patch:
        patch.setattr(cut_module._ImageWriter, "write", full_at(20))
        assert command(*asked) == 3
    assert "the disk is full" in capsys.readouterr().err
    assert not list((tmp_path / "out" / "clips").iterdir())
    assert command(*asked) == 0
    out = capsys.readouterr().out
    assert "4 of 4 clips, 4 of them new" in out and "licence sidecar" in out
    assert site.pages["/0.mp4"].asked == [None]


def test_nothing_fetched_is_a_failure_and_points_at_the_journal(
    site: Site, tmp_path: Path, video_bytes: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lists(tmp_path / "lists", site.url, 2)  # of videos that the server does not have
    asked = ("fetch", "hdtf", "--lists", tmp_path / "lists", "--out", tmp_path / "out", "pause_s=0")
    assert command(*asked) == 1
    out = capsys.readouterr().out
    assert "0 of 2 clips" in out and "next:" not in out
    assert f"nothing was fetched; why not stands in {tmp_path / 'out' / 'journal.jsonl'}" in out
    site.put("/1.mp4", video_bytes)
    assert command(*asked, "retry_dead=true") == 0
    assert "1 of 2 clips" in capsys.readouterr().out
    assert command(*asked) == 0, "what is there already counts"
    (tmp_path / "lists" / "WDA_video_url.txt").write_text("Person0\n")
    assert command(*asked) == 1 and "the lists hold no usable clip" in capsys.readouterr().out


def test_the_commands_tell_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lists(tmp_path, "http://127.0.0.1", 1)
    for arguments, said in (
        (["plan", "hdtff", "--lists", tmp_path], "no dataset 'hdtff' (did you mean 'hdtf'?)"),
        (["plan", "hdtf"], "hdtf needs --lists PATH, the file or folder of the dataset's own lists"),
        (["plan", "grid"], "grid needs --lists PATH, the folder of its videos"),
        (["plan", tmp_path], f"is a folder, not a dataset; write df-data plan folder --lists {tmp_path} "),
        (["plan", "hdtf", "--lists", tmp_path / "no"], "holds no HDTF list"),
        (["fetch", "hdtf", "--lists", tmp_path], "--out"),
        (["fetch", "hdtf", "--lists", tmp_path, "--out", tmp_path / "o", "rate_limt=1"], "did you mean 'rate_limit'"),
        (["fetch", "hdtf", "--lists", tmp_path, "--out", tmp_path / "o", "cookies=no.txt"], "no cookie file"),
    ):
        assert command(*arguments) == 2, arguments
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def wait_for_changes(folder: Path, count: int, ended: int) -> None:
    """Return when files of a folder were seen to come, grow or go so many times, or when a process has ended."""
    before: dict[Path, int] = {}
    while count and not multiprocessing.connection.wait([ended], 0.001):
        now = {}
        for parent, _, names in os.walk(folder):  # which passes over what goes while it looks
            for path in (Path(parent, name) for name in names):
                with contextlib.suppress(FileNotFoundError):
                    now[path] = path.stat().st_size
        count -= now != before
        before = now


def test_a_fetch_killed_at_any_moment_ends_the_same(site: Site, tmp_path: Path, video_bytes: bytes) -> None:
    write_lists(tmp_path / "lists", site.url, 5, clips=2)
    for i in range(5):
        site.put(f"/{i}.mp4", video_bytes)

    def arguments(out: str) -> list[str]:
        options = ["pause_s=0", "backoff_s=0", "rate_limit=1500000"]
        return ["fetch", "hdtf", *options, "--lists", str(tmp_path / "lists"), "--out", str(tmp_path / out)]

    assert command(*arguments("whole")) == 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["df_data.cli", "df_data.fetch.run", "df_data.fetch.command", "av"])
    generator, killed, steps = random.Random(3), 0, []
    for _ in range(60):
        if killed >= 8 and len(set(steps)) >= 3:
            break
        process = context.Process(target=cli.main, args=(arguments("killed"),))
        process.start()
        wait_for_changes(tmp_path / "killed", generator.randrange(1, 60), process.sentinel)
        if process.is_alive():
            process.kill()
            process.join()
            killed += 1
        else:  # it came through before its time: once more from the start
            shutil.rmtree(tmp_path / "killed")
            continue
        clips = list((tmp_path / "killed" / "clips").glob("[!.]*.mp4"))
        for clip in clips:
            if clip.with_suffix(".json").exists():
                assert read_sidecar(clip).sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
        steps.append(len(clips))
    assert killed >= 8 and len(set(steps)) >= 3, (killed, steps)
    assert command(*arguments("killed")) == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole") and not (tmp_path / "killed" / "raw").exists()


# -------------------- the plan, the build


def test_the_plan_counts_and_downloads_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = urls(4, clips=2)
    run(config(tmp_path / "out", limit=2), catalogue, Extractor(Gone("private", "")))
    plan = make_plan(config(tmp_path / "out"), catalogue)
    assert (plan.videos, plan.clips, plan.persons, plan.there, plan.dead) == (4, 8, 2, 2, {"private": 1})
    assert plan.hours == pytest.approx(8 / 3600) and plan.watched_hours == pytest.approx(4 * 3 / 3600)
    assert plan.gigabytes[1080] == pytest.approx(12 * 4.0 / 8000) and not plan.tools
    write_lists(tmp_path / "lists", "https://www.youtube.com/watch?v=aaaaaaaaaa", 1)
    lists = tmp_path / "lists" / "WDA_video_url.txt"
    lists.write_text("Person0 https://www.youtube.com/watch?v=aaaaaaaaaaa\nPerson1\n")
    assert command("plan", "hdtf", "--lists", tmp_path / "lists", "--out", tmp_path / "new") == 0
    out = capsys.readouterr().out
    for said in (
        "1 clip of 1 video,",
        "licence: CC-BY-4.0",
        "1 named",
        "GB at 1080p",
        "assuming",
        "yt-dlp",
        "JavaScript",
    ):
        assert said in out, said
    assert "WDA_video_url.txt, line 2: 0 fields" in out and "WDA_Person0_0: https://" in out
    assert not (tmp_path / "new").exists()


def test_the_plan_of_files_says_that_they_are_whole_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "b.mkv"):
        (tmp_path / name).touch()
    assert command("plan", "folder", "--lists", tmp_path) == 0
    out = capsys.readouterr().out
    assert "2 clips of 2 videos, whole files, whose lengths df-data build measures\n" in out
    assert "    a: a.mp4, whole, person not named\n" in out and "named by the folders" in out
    assert f"next: df-data build with a source of folder {tmp_path} " in out.splitlines()[-1]
    assert " h and" not in out and "0-end" not in out


def test_a_missing_ytdlp_is_told_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lists(tmp_path, "https://www.youtube.com", 1)
    for name in ("yt_dlp", "yt_dlp.version"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "WDA_video_url.txt").write_text("Person0 https://www.youtube.com/watch?v=aaaaaaaaaaa\n")
    assert command("fetch", "hdtf", "--lists", tmp_path, "--out", tmp_path / "o") == 2
    assert "pip install 'df-data[fetch]'" in capsys.readouterr().err


def test_a_build_reads_identity_licence_and_provenance_from_the_sidecars(tmp_path: Path) -> None:
    run(config(tmp_path), urls(4), Extractor())
    source = SourceConfig(name="web", folder=str(tmp_path / "clips"), identity="sidecar", licence="sidecar")
    inputs = list_inputs((source,), SplitConfig(by="identity", val=1))
    assert [made.identity for made in inputs] == ["web-test_p0", "web-test_p1", "web-test_p0", "web-test_p1"]
    assert {made.licence for made in inputs} == {"CC0-1.0"}
    assert len({made.split for made in inputs if made.identity == "web-test_p0"}) == 1
    provenance = inputs[1].provenance
    assert provenance["url"] == "http://host/1.mp4" and provenance["source_crop"] == [40.0, 10.0, 80.0, 80.0]
    assert (provenance["source_start_s"], provenance["source_end_s"], provenance["video_licence"]) == (
        1.0,
        2.0,
        "CC-BY",
    )
    assert json.dumps(dict(provenance))
    given = source.model_copy(update={"licence": "mine"})
    assert {made.licence for made in list_inputs((given,), SplitConfig(by="sentence", val=1))} == {"mine"}
    (tmp_path / "clips" / "v0_0.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        list_inputs((source,), SplitConfig())
    (tmp_path / "clips" / "v0_0.json").unlink()
    with pytest.raises(UserError, match="no sidecar"):
        list_inputs((source,), SplitConfig())


def test_the_first_folder_names_the_person(tmp_path: Path) -> None:
    for name in ("id1/a/1.mp4", "id1/b/1.mp4", "id2/a/1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    source = SourceConfig(name="v", folder=str(tmp_path), pattern="*/*/*.mp4", identity="top", licence="x")
    inputs = list_inputs((source,), SplitConfig())
    assert [made.identity for made in inputs] == ["v-id1", "v-id1", "v-id2"] and inputs[0].provenance == {}
    (tmp_path / "1.mp4").touch()
    with pytest.raises(UserError, match="lies in no folder"):
        list_inputs((source.model_copy(update={"pattern": "**/*.mp4"}),), SplitConfig())


def test_http_and_fetch_together_survive_a_bad_server(site: Site, tmp_path: Path, video_bytes: bytes) -> None:
    clips = [
        make_clip(1, 2, name=name, url=site.put(f"/{name}.mp4", video_bytes, *faults))
        for name, faults in (
            ("good", ["ok"]),
            ("gone", ["404"]),
            ("busy", ["429", "503", "ok"]),
            ("cut", ["cut", "cut", "ok"]),
            ("never", ["long"]),
        )
    ]
    slept: list[float] = []
    summary = run(config(tmp_path), listed(*clips), HttpDownloader(Throttle(None), 2.0), slept)
    assert summary.clips == 3 and summary.dead == {"http_404": 1}
    # A server that promises more than it sends is asked for the rest, refuses, and is begun anew: never a whole file.
    assert set(summary.later) <= {"cut_off", "range_refused"} and sum(summary.later.values()) == 1
    assert 7.0 in slept  # what the server asked for with its 429
    assert sorted(path.stem for path in (tmp_path / "clips").glob("*.mp4")) == ["busy", "cut", "good"]
