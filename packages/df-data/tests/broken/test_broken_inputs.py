"""A build over hundreds of broken inputs: each ends with one line of the ledger, and nothing else happens.

What is allowed to come of each stands with it (:mod:`broken_cases`). Bits that were flipped at random may leave an
intact video; a playlist may not.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from broken_cases import FAILED, Case
from broken_damage import REGIONS, broken_off, damaged, flip, flipped
from broken_junk import junk, lists
from broken_models import PaperModels
from broken_names import strangers
from broken_odd import odd
from broken_render import CONTAINERS, Recipe, render

from df_data.build.build import build
from df_data.build.config import BuildConfig, ClipConfig
from df_data.check.validate import check_dataset
from df_data.format.ledger import LEDGER_NAME, Ledger, LedgerEntry
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.sources.duplicates import same_contents
from df_data.sources.listing import list_inputs
from df_data.stages.decode import iter_segments
from df_data.stages.faces import FaceFilter
from df_data.stages.prepare import StageConfig
from df_data.stages.quality import QualityFilter
from df_data.stages.rejection import Rejected
from df_models.errors import UserError

pytestmark = pytest.mark.timeout(600)

GOOD = ("fast.mp4", "mpg", "webm", "ts")
LEAST = 200
RSS_MIB = 1400
"""A worker's peak: 480 MiB of Python, torch and encoders, and what a segment of these small videos takes; an image of
16384 pixels a side would alone take 800 MiB more, 10 s of audio at 2 GHz 80 GiB."""
REAL_RSS_MIB = 2200
"""The same with the real detector and landmarker and 3 s of 360x288."""
OUT_MIB = 20
DEADLINE_S = 500.0
"""For a machine that does much else; alone it takes a tenth. No input may take ``timeout_s``, which is told apart."""
OFF = {"enabled": False}
STAGES = StageConfig(
    size=32,
    crop="paper:1.3:-0.03",
    faces=FaceFilter(min_face=8),
    quality=QualityFilter.model_validate(dict.fromkeys(("voice", "noise", "sync", "occlusion"), OFF)),
)


@dataclass(frozen=True)
class Folder:
    """Broken inputs on disk.

    Attributes:
        place: holds ``in``, the inputs, and ``elsewhere``, a video that no input may bring in.
        visits: who came to the address that some inputs name.
    """

    place: Path
    cases: tuple[Case, ...]
    visits: list[str]


class Listener:
    """A port of this machine that writes down every visit."""

    def __init__(self) -> None:
        self.visits: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, who = self._socket.accept()
            except OSError:
                return
            self.visits.append(str(who))
            connection.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of intact videos by the end of their names."""
    path, found = tmp_path_factory.mktemp("audio") / "video", {}
    for suffix, recipe in CONTAINERS.items():
        render(path, recipe)
        found[suffix] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    opened = Listener()
    yield opened
    opened.close()


def fill(place: Path, tone: Mapping[str, bytes], address: str, visits: list[str], seeds: int = 1) -> Folder:
    """Write all broken inputs and some intact ones."""
    secret = place / "elsewhere" / "secret.ts"
    secret.parent.mkdir(parents=True)
    secret.write_bytes(tone["ts"] + b"\0")
    render(place / "short", replace(CONTAINERS["mp4"], times=CONTAINERS["mp4"].times[:20]))
    short = (place / "short").read_bytes()
    cases = [
        *damaged(tone, seeds), *junk(), *lists("audio.ts", secret, address), *odd(),
        *strangers(tone["webm"], short, secret),
    ]  # fmt: skip
    for case in cases:
        path = place / "in" / case.name
        path.parent.mkdir(parents=True, exist_ok=True)
        case.write(path)
    for suffix in GOOD:
        (place / "in" / f"audio.{suffix}").write_bytes(tone[suffix])
    return Folder(place, tuple(cases), visits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tone: dict[str, bytes], listener: Listener) -> Folder:
    return fill(tmp_path_factory.mktemp("broken"), tone, listener.address, listener.visits)


def config(place: Path, out: str = "out", **settings: object) -> BuildConfig:
    fields = {"workers": 2, "timeout_s": 60.0, "keep_video": False, **settings}
    return BuildConfig(
        out=str(place / out),
        sources=(SourceConfig(name="b", folder=str(place / "in"), pattern="**/*", licence="CC0-1.0"),),
        split=SplitConfig(by="sentence", val=2),
        stages=STAGES,
        clips=ClipConfig(frames=33, stride=40, references=1),
        **fields,  # type: ignore[arg-type]
    )


def snapshot(place: Path, out: str) -> dict[str, tuple[int, int]]:
    """Size and time of everything but the dataset."""
    found = {}
    for folder, _, files in os.walk(place):
        if Path(folder) == place / out or (place / out) in Path(folder).parents:
            continue
        for name in files:
            status = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (status.st_size, status.st_mtime_ns)
    return found


class Watch:
    """The largest resident memory that any child of this process, or child of a child, has come to, in MiB."""

    def __init__(self) -> None:
        self.most, self.processes = 0.0, set[int]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.2):
            for pid in descendants(os.getpid()):
                peak = re.search(r"VmHWM:\s+(\d+) kB", read(Path(f"/proc/{pid}/status")))
                if peak:
                    self.processes.add(pid)
                    self.most = max(self.most, int(peak[1]) / 1024)


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    children = [int(c) for path in Path(f"/proc/{pid}/task").glob("*/children") for c in read(path).split()]
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]


def end_of(entry: LedgerEntry) -> str:
    return entry.reason or "" if entry.status == "rejected" else entry.status


def by_file(folder: Folder, ledger: Ledger) -> dict[str, LedgerEntry]:
    """The ledger's entries by the name of the file, as it stands in the folder."""
    inputs = list_inputs(config(folder.place).sources, SplitConfig(by="sentence", val=2))
    return {made.path.relative_to(folder.place / "in").as_posix(): ledger.entries[made.name] for made in inputs}


@dataclass(frozen=True)
class Built:
    """What a build over the broken inputs left."""

    folder: Folder
    entries: dict[str, LedgerEntry]
    lines: list[str]
    watch: Watch
    elapsed: float
    before: dict[str, tuple[int, int]]


def build_over(folder: Folder, **settings: object) -> Built:
    before, started = snapshot(folder.place, "out"), time.monotonic()
    with Watch() as watch:
        build(config(folder.place, **settings), make=PaperModels, progress=False)
    elapsed = time.monotonic() - started
    path = folder.place / "out" / LEDGER_NAME
    return Built(folder, by_file(folder, Ledger(path)), path.read_text().splitlines(), watch, elapsed, before)


@pytest.fixture(scope="module")
def built(folder: Folder) -> Built:
    return build_over(folder)


def test_there_are_enough_of_them_and_of_every_kind(folder: Folder) -> None:
    assert len({case.name for case in folder.cases}) == len(folder.cases) >= LEAST
    assert len(Counter(case.kind for case in folder.cases)) >= 25


def test_each_ends_with_one_line_for_a_right_reason(built: Built) -> None:
    check_ends(built)


def check_ends(built: Built) -> None:
    assert len(built.lines) == len(built.entries) == len(built.folder.cases) + len(GOOD)
    place = built.folder.place / "in"
    copies = same_contents(sorted(place / name for name in built.entries))  # damage that changed nothing
    wrong = {
        case.name: (end_of(built.entries[case.name]), built.entries[case.name].error)
        for case in built.folder.cases
        if end_of(built.entries[case.name]) not in case.ends
        and (place / case.name not in copies or end_of(built.entries[case.name]) != "duplicate")
    }
    assert not wrong
    assert {built.entries[f"audio.{suffix}"].status for suffix in GOOD} == {"accepted"}
    for entry in built.entries.values():
        told = entry.detail if entry.status == "rejected" else entry.error
        assert entry.status == "accepted" or (told and "\n" not in told and len(told) < 300), entry
        assert str(built.folder.place) not in f"{told} {entry.input}", "no path of this machine"
        assert "crashed" not in (entry.error or "") and "took longer" not in (entry.error or ""), entry
        assert re.match(r"^\w+(Error|Exception): ", entry.error or "") is None, f"nobody foresaw {entry.error}"


def test_nobody_follows_a_list(built: Built) -> None:
    assert not built.folder.visits
    kinds = {case.kind: {built.entries[c.name].status for c in built.folder.cases if c.kind == case.kind}
             for case in built.folder.cases}  # fmt: skip
    assert kinds["list of other files"] == {FAILED}


def test_memory_disk_and_time_are_bounded(built: Built) -> None:
    assert len(built.watch.processes) >= 2 and built.watch.most < RSS_MIB
    written = sum(path.stat().st_size for path in (built.folder.place / "out").rglob("*") if path.is_file())
    assert written < OUT_MIB << 20
    assert built.elapsed < DEADLINE_S


def test_nothing_outside_the_dataset_is_touched(built: Built) -> None:
    assert snapshot(built.folder.place, "out") == built.before
    assert not Path("pwned").exists(), "no input is run"


def test_the_dataset_of_the_rest_is_whole(built: Built) -> None:
    report = check_dataset(built.folder.place / "out")
    assert report.problems == () and report.clips >= len(GOOD)


def test_again_does_nothing(built: Built) -> None:
    out = built.folder.place / "out"

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "config.yaml"}

    before = files()
    build(config(built.folder.place, workers=1), make=PaperModels, progress=False)
    assert len(before) > len(GOOD) and before == files()


@pytest.mark.slow
def test_elsewhere_gives_the_same_bytes(built: Built) -> None:
    place = built.folder.place
    build(config(place, "other", workers=1), make=PaperModels, progress=False)
    names = sorted(path.relative_to(place / "out") for path in (place / "out").glob("*/shard-*"))
    assert names
    assert all((place / "out" / name).read_bytes() == (place / "other" / name).read_bytes() for name in names)
    mine, theirs = (by_file_of(place / out) for out in ("out", "other"))
    assert mine == theirs


def by_file_of(out: Path) -> dict[str, LedgerEntry]:
    entries = Ledger(out / LEDGER_NAME).entries
    return {name: entry.model_copy(update={"seconds": {}}) for name, entry in entries.items()}


@pytest.mark.slow
def test_more_of_them(tmp_path: Path, tone: dict[str, bytes], listener: Listener) -> None:
    built = build_over(fill(tmp_path, tone, listener.address, listener.visits, seeds=12))
    check_ends(built)
    assert not listener.visits and built.watch.most < RSS_MIB
    print(len(built.lines), Counter(map(end_of, built.entries.values())), f"{built.watch.most:.0f} MiB")


def folder_of(variable: str, fallback: str) -> Path:
    folder = Path(os.environ.get(variable) or fallback).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real test data: set {variable} (no folder {folder})")
    return folder


@pytest.mark.slow
def test_a_real_clip_in_pieces_through_the_real_stages(tmp_path: Path) -> None:
    """A GRID clip cut off and with flipped bits, beside whole ones, with the real detector and landmarker."""
    pytest.importorskip("mediapipe", exc_type=ImportError)
    data, weights = folder_of("DF_TEST_DATA", "../shared/data"), folder_of("DF_TEST_WEIGHTS", "../shared/weights")
    clips = sorted((data / "grid/s1").glob("*.mpg"))[:4]
    cases = [*broken_off({"mpg": clips[0].read_bytes()}), *flipped({"mpg": clips[0].read_bytes()}, seeds=8)]
    (tmp_path / "in").mkdir()
    for case in cases:
        case.write(tmp_path / "in" / case.name)
    for clip in clips[1:]:
        (tmp_path / "in" / clip.name).write_bytes(clip.read_bytes())
    models = {
        "face_detector": str(weights / "yunet_n_dynamic.onnx"),
        "face_landmarker": str(weights / "mediapipe_face_landmarker_v2_with_blendshapes.task"),
    }
    settings = config(tmp_path, models=models, timeout_s=200.0)
    stages = StageConfig(size=64, faces=FaceFilter(min_face=64))
    with Watch() as watch:
        build(settings.model_copy(update={"stages": stages}), progress=False)
    entries = Ledger(tmp_path / "out" / LEDGER_NAME).entries
    ends = {name.removeprefix("b/"): end_of(entry) for name, entry in entries.items()}
    print(Counter(ends.values()), f"{watch.most:.0f} MiB")
    assert len(ends) == len(cases) + 3 and {ends[clip.name] for clip in clips[1:]} == {"accepted"}
    of_faces = {"too_short", "no_face", "more_than_one_face", "face_moves_away", "landmarks_missing", "sound_offset"}
    of_faces |= {"face_cut_off", "frozen_picture", "other_speech", "shot_cut"}
    of_audio = {"too_little_speech", "sound_too_short", "silent_sound_track", "broken_sound"}
    wrong = {case.name: ends[case.name] for case in cases if ends[case.name] not in case.ends | of_faces | of_audio}
    assert not wrong and watch.most < REAL_RSS_MIB


# -------------------- the decoder alone


def ends_of_decoding(path: Path) -> Counter[str]:
    """How decoding a file ends: a number of segments, a refusal, a failure; anything else is raised."""
    try:
        return Counter({"segments": sum(1 for _ in iter_segments(path))})
    except Rejected as rejected:
        return Counter({rejected.reason: 1})
    except UserError:
        return Counter({FAILED: 1})


def fuzz(tmp_path: Path, tone: Mapping[str, bytes], seeds: range, flips: int) -> Counter[str]:
    ends: Counter[str] = Counter()
    for suffix, data in tone.items():
        for region, bounds in REGIONS.items():
            for seed in seeds:
                path = tmp_path / "fuzzed"
                path.write_bytes(flip(data, f"{suffix} {region} {seed}", bounds, flips))
                began = time.monotonic()
                ends += ends_of_decoding(path)
                assert time.monotonic() - began < 30, f"{suffix} {region} {seed} takes for ever"
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("flips", [1, 5, 40])
def test_no_flipped_bit_brings_the_decoder_down(tmp_path: Path, tone: dict[str, bytes], flips: int) -> None:
    fuzz(tmp_path, tone, range(2), flips)
    before = resident()
    ends = fuzz(tmp_path, tone, range(2, 20), flips)
    print(dict(ends))
    assert ends["segments"] and ends[FAILED] and resident() - before < 200


def resident() -> float:
    """Resident memory of this process in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


@pytest.mark.slow
def test_two_hours_of_black_in_a_small_file_take_no_memory(tmp_path: Path) -> None:
    """One image a second, 7200 of them; every segment of ten seconds is made of 250 frames."""
    path = tmp_path / "black.mkv"
    render(path, Recipe(format="matroska", audio="flac", rate=8000, times=tuple(range(7200)), size=(64, 64)))
    before = resident()
    lengths = [len(part.frames) for part in iter_segments(path)]
    assert sum(lengths) == 7200 * 25 and max(lengths) == 250
    assert resident() - before < 150
