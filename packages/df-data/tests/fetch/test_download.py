"""Downloads over HTTP and with yt-dlp: resumed, limited, and sorted into what is gone and what may still come."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest
from bad_server import Site

from df_data.fetch.download import Downloader, DownloadFailed, Gone, Passing, Throttle, raise_if_disk_full
from df_data.fetch.http import HttpDownloader
from df_data.fetch.ytdlp import YtDlpDownloader, choose_formats, classify

BODY = bytes(hashlib.sha256(b"body").digest()) * 20_000


def plain(throttle: Throttle | None = None, **options: Any) -> HttpDownloader:
    return HttpDownloader(throttle or Throttle(None), timeout_s=1.0, **options)


def until_done(downloader: Downloader, url: str, folder: Path, most: int = 5) -> tuple[Path, list[str]]:
    """Try again after passing failures; return the file and the reasons."""
    reasons: list[str] = []
    for _ in range(most):
        try:
            return folder / downloader.download(url, folder, lambda count: None).video, reasons
        except Passing as passing:
            reasons.append(passing.reason)
    raise AssertionError(reasons)


def test_a_file_comes_whole_and_progress_adds_up(site: Site, tmp_path: Path) -> None:
    told: list[int] = []
    found = plain().download(site.put("/v.mp4", BODY), tmp_path, told.append)
    assert (tmp_path / found.video).read_bytes() == BODY
    assert sum(told) == found.bytes == len(BODY) and found.audio is None


def test_a_cut_connection_is_continued_where_it_was(site: Site, tmp_path: Path) -> None:
    url = site.put("/v.mp4", BODY, "cut", "cut", "ok")
    path, reasons = until_done(plain(), url, tmp_path)
    assert path.read_bytes() == BODY and reasons == ["cut_off", "cut_off"]
    half = len(BODY) // 2
    assert site.pages["/v.mp4"].asked == [None, f"bytes={half}-", f"bytes={half + (len(BODY) - half) // 2}-"]


def test_another_process_continues_too(site: Site, tmp_path: Path) -> None:
    url = site.put("/v.mp4", BODY, "cut", "ok")
    with pytest.raises(Passing):
        plain().download(url, tmp_path, lambda count: None)
    assert plain().download(url, tmp_path, lambda count: None).bytes == len(BODY)
    assert site.pages["/v.mp4"].asked[1] == f"bytes={len(BODY) // 2}-"


@pytest.mark.parametrize("fault", ["no_range", "ok"])
def test_a_file_that_changed_or_a_server_without_ranges_begins_anew(site: Site, tmp_path: Path, fault: str) -> None:
    url = site.put("/v.mp4", BODY, "cut", fault)
    with pytest.raises(Passing):
        plain().download(url, tmp_path, lambda count: None)
    page, other = site.pages["/v.mp4"], BODY[::-1]
    page.body, page.etag = other, '"two"'
    path, _ = until_done(plain(), url, tmp_path)
    assert path.read_bytes() == other


def test_a_file_that_got_shorter_begins_anew(site: Site, tmp_path: Path) -> None:
    url = site.put("/v.mp4", BODY, "cut", "ok")
    with pytest.raises(Passing):
        plain().download(url, tmp_path, lambda count: None)
    site.pages["/v.mp4"].body = BODY[:100]
    path, reasons = until_done(plain(), url, tmp_path)
    assert path.read_bytes() == BODY[:100] and reasons == ["range_refused"]


def test_without_a_mark_of_the_version_nothing_is_continued(site: Site, tmp_path: Path) -> None:
    url = site.put("/v.mp4", BODY, "cut", "ok")
    site.pages["/v.mp4"].etag = None
    path, _ = until_done(plain(), url, tmp_path)
    assert path.read_bytes() == BODY and site.pages["/v.mp4"].asked == [None, None]


@pytest.mark.parametrize(("code", "reason"), [("404", "http_404"), ("403", "http_403"), ("410", "http_410")])
def test_gone_for_good(site: Site, tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(Gone) as gone:
        plain().download(site.put("/v.mp4", BODY, code), tmp_path, lambda count: None)
    assert gone.value.reason == reason


def test_too_many_requests_say_how_long_to_wait(site: Site, tmp_path: Path) -> None:
    url = site.put("/v.mp4", BODY, "429", "503", "ok")
    with pytest.raises(Passing) as passing:
        plain().download(url, tmp_path, lambda count: None)
    assert (passing.value.reason, passing.value.wait_s) == ("http_429", 7.0)
    path, reasons = until_done(plain(), url, tmp_path)
    assert path.read_bytes() == BODY and reasons == ["http_503"]


@pytest.mark.parametrize(("fault", "reason"), [("slow", "connection"), ("long", "cut_off")])
def test_silence_and_a_length_that_is_never_reached_are_passing(
    site: Site, tmp_path: Path, fault: str, reason: str
) -> None:
    with pytest.raises(Passing) as passing:
        plain().download(site.put("/v.mp4", BODY, fault), tmp_path, lambda count: None)
    assert passing.value.reason == reason and not (tmp_path / "video").exists()


def test_a_redirect_to_a_local_file_is_not_followed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed):
        plain().download(site.put("/v.mp4", BODY, "redirect_file"), tmp_path, lambda count: None)
    assert not (tmp_path / "video").exists()


def test_nobody_there_is_passing_and_too_large_is_gone(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Passing):
        plain().download("http://127.0.0.1:9/v.mp4", tmp_path, lambda count: None)
    with pytest.raises(Gone) as gone:
        plain(max_bytes=1000).download(site.put("/v.mp4", BODY), tmp_path, lambda count: None)
    assert gone.value.reason == "too_large"


def test_the_rate_is_kept() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    throttle = Throttle(1000, clock=lambda: now[0], sleep=sleep)
    for _ in range(20):
        throttle.passed(500)
    assert now[0] == pytest.approx(10.0)
    now[0] += 100.0  # a pause does not save up for a burst
    throttle.passed(2000)
    assert now[0] == pytest.approx(112.0)
    Throttle(None, clock=lambda: 0.0, sleep=lambda seconds: pytest.fail("no limit, no sleep")).passed(10**9)


def test_the_rate_is_kept_on_the_wire(site: Site, tmp_path: Path) -> None:
    slept: list[float] = []
    throttle = Throttle(100_000, clock=lambda: sum(slept), sleep=slept.append)
    plain(throttle).download(site.put("/v.mp4", BODY), tmp_path, lambda count: None)
    assert sum(slept) == pytest.approx(len(BODY) / 100_000)


def test_a_full_disk_is_found_wherever_it_is_wrapped() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    middle = RuntimeError("outer")
    middle.__cause__ = full
    wrapped = RuntimeError("tool")
    wrapped.exc_info = (RuntimeError, middle, None)  # type: ignore[attr-defined]
    for error in (full, middle, wrapped):
        with pytest.raises(OSError, match="No space") as found:
            raise_if_disk_full(error)
        assert found.value.errno == errno.ENOSPC
    raise_if_disk_full(ValueError("other"))
    raise_if_disk_full(None)


# -------------------- yt-dlp


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        ("ERROR: [youtube] x: Video unavailable", Gone, "unavailable"),
        ("[youtube] x: Private video. Sign in if you've been granted access", Gone, "private"),
        ("[youtube] x: This video has been removed by the uploader", Gone, "removed"),
        ("This video is no longer available because the YouTube account has been terminated", Gone, "removed"),
        ("The uploader has not made this video available in your country", Gone, "blocked_here"),
        ("[youtube] x: Sign in to confirm your age. This video may be inappropriate", Gone, "needs_login"),
        ("Unable to download webpage: HTTP Error 404: Not Found", Gone, "not_found"),
        ("Unsupported URL: http://a/b", Gone, "unsupported"),
        ("[youtube] x: Sign in to confirm you’re not a bot. Use --cookies", Passing, "too_many_requests"),
        ("This content isn't available, try again later. rate-limited by YouTube", Passing, "too_many_requests"),
        ("Unable to download webpage: HTTP Error 429: Too Many Requests", Passing, "too_many_requests"),
        ("unable to download video data: HTTP Error 403: Forbidden", Passing, "connection"),
        ("unable to download video data: HTTP Error 503", Passing, "connection"),
        ("Read timed out.", Passing, "connection"),
        ("<urlopen error [Errno -2] Name or service not known> unable to resolve", Passing, "connection"),
        ("something never seen before", Passing, "unknown"),
    ],
)  # fmt: skip
def test_errors_are_told_apart(message: str, kind: type, reason: str) -> None:
    found = classify(message)
    assert (type(found), found.reason) == (kind, reason)


def form(name: str, height: int | None = None, video: str = "h264", tone: str = "none", **more: Any) -> dict[str, Any]:
    return {"format_id": name, "height": height, "vcodec": video, "acodec": tone} | more


AUDIO = [form("a1", video="none", tone="opus"), form("a2", video="none", tone="aac")]
BOARD = form("sb", video="none")


@pytest.mark.parametrize(
    ("formats", "chosen"),
    [
        ([BOARD, *AUDIO, form("18", 360, tone="aac"), form("v720", 720), form("v1080", 1080)], ["v1080", "a2"]),
        ([*AUDIO, form("v720", 720), form("v2160", 2160)], ["v720", "a2"]),
        ([*AUDIO, form("v1440", 1440), form("v2160", 2160)], ["v1440", "a2"]),
        ([*AUDIO, form("sdr", 1080), form("hdr", 1080, dynamic_range="HDR10")], ["sdr", "a2"]),
        ([form("18", 360, tone="aac")], ["18"]),
        ([form("v360", 360), form("18", 360, tone="aac")], ["18"]),
        ([form("v720", 720), form("18", 360, tone="aac")], ["v720"]),
        ([*AUDIO, form("drm", 1080, has_drm=True), form("v720", 720)], ["v720", "a2"]),
        ([{"format_id": "0"}], ["0"]),
        ([BOARD, *AUDIO], []),
    ],
)
def test_formats_are_chosen_by_height(formats: list[dict[str, Any]], chosen: list[str]) -> None:
    assert [found["format_id"] for found in choose_formats(formats, 1080)] == chosen


@pytest.fixture
def ytdlp() -> YtDlpDownloader:
    pytest.importorskip("yt_dlp")
    return YtDlpDownloader(timeout_s=2.0)


def test_ytdlp_downloads_from_this_machine(
    site: Site, tmp_path: Path, ytdlp: YtDlpDownloader, video_bytes: bytes
) -> None:
    told: list[int] = []
    found = ytdlp.download(site.put("/page/v.mp4", video_bytes), tmp_path, told.append)
    assert (tmp_path / found.video).read_bytes() == video_bytes
    assert sum(told) == len(video_bytes) == found.bytes and found.tool.startswith("yt-dlp 20")


def test_ytdlp_continues_a_cut_download(site: Site, tmp_path: Path, ytdlp: YtDlpDownloader, video_bytes: bytes) -> None:
    # The first two requests are those that look at the page.
    url = site.put("/v.mp4", video_bytes, "ok", "cut", "ok")
    path, reasons = until_done(ytdlp, url, tmp_path)
    assert path.read_bytes() == video_bytes and len(reasons) == 1
    assert any(asked and asked != "bytes=0-" for asked in site.pages["/v.mp4"].asked)


@pytest.mark.parametrize(
    ("fault", "kind", "reason"), [("404", Gone, "not_found"), ("429", Passing, "too_many_requests")]
)
def test_ytdlp_failures(
    site: Site, tmp_path: Path, ytdlp: YtDlpDownloader, fault: str, kind: type, reason: str
) -> None:
    with pytest.raises(DownloadFailed) as failed:
        ytdlp.download(site.put("/v.mp4", BODY, fault), tmp_path, lambda count: None)
    assert (type(failed.value), failed.value.reason) == (kind, reason)


def test_ytdlp_refuses_what_is_too_large_and_broadcasts(
    site: Site, tmp_path: Path, video_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("yt_dlp")
    url = site.put("/v.mp4", video_bytes)
    with pytest.raises(Gone) as gone:
        YtDlpDownloader(max_bytes=1000).download(url, tmp_path, lambda count: None)
    assert gone.value.reason == "too_large" and not list(tmp_path.glob("*.mp4"))
    from yt_dlp.extractor.generic import GenericIE

    extract = GenericIE._real_extract
    monkeypatch.setattr(GenericIE, "_real_extract", lambda self, url: extract(self, url) | {"is_live": True})
    with pytest.raises(Gone) as gone:
        YtDlpDownloader().download(url, tmp_path, lambda count: None)
    assert gone.value.reason == "live"


def test_ytdlp_in_a_relative_folder(
    site: Site, tmp_path: Path, ytdlp: YtDlpDownloader, video_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("raw 50%(x)s") / "yt_aaaaaaaaaaa"
    folder.mkdir(parents=True)
    found = ytdlp.download(site.put("/v.mp4", video_bytes), folder, lambda count: None)
    assert (folder / found.video).read_bytes() == video_bytes


def test_ytdlp_on_a_full_disk(
    site: Site, tmp_path: Path, ytdlp: YtDlpDownloader, video_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yt_dlp.downloader.http import HttpFD

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HttpFD, "real_download", full)
    with pytest.raises(OSError, match="No space") as found:
        ytdlp.download(site.put("/v.mp4", video_bytes), tmp_path, lambda count: None)
    assert found.value.errno == errno.ENOSPC
