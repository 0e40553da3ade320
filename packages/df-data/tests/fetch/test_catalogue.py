"""Every dataset's own lists become the same records; what is wrong in them is told by file and line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from df_data.sources.catalogue import LOCAL, READERS, CatalogueClip, DatasetName, ListedCrop, layouts, read_catalogue
from df_data.sources.catalogue.clip import canonical_url, video_key, youtube_url
from df_data.sources.catalogue.hdtf import seconds
from df_data.sources.catalogue.layouts import LocalName
from df_data.sources.catalogue.pieces import into_pieces
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.sources.listing import list_inputs
from df_models.errors import UserError
from df_models.settings import Location

WATCH = "https://www.youtube.com/watch?v="


def write_hdtf(folder: Path, prefix: str = "HDTF_") -> Path:
    """Lists in HDTF's format, with one fault of each kind."""
    lists = {
        "RD_video_url": [
            "Radio11 https://www.youtube.com/watch?v=aaaaaaaaaaa&t=6s",
            "Radio24 " + WATCH + "bbbbbbbbbbb",
            "",
        ],
        "RD_annotion_time": ["Radio11.mp4 00:30-01:00 01:30-02:30 1:02:03-1:02:09 "],
        "RD_resolution": ["Radio11.mp4 720"],
        "RD_crop_wh": ["Radio11_0.mp4 412 599 0 599", "Radio11_1.mp4 557 478 12 478", "Radio11_2.mp4 1 2 3", ""],
        "WDA_video_url": [
            "\ufeffAnnDoe2 " + WATCH + "ccccccccccc",
            "AnnDoe1 " + WATCH + "ddddddddddd",
            "Bob ../../etc/passwd",
            "../x " + WATCH + "eeeeeeeeeee",
            "Zoe " + WATCH + "fffffffffff",
            "AnnDoe1 " + WATCH + "ddddddddddd",
        ],
        "WDA_annotion_time": [
            "AnnDoe2.mp4 00:05-00:09",
            "AnnDoe1.mp4 00:10-00:09",
            "Bob.mp4 00:05-00:09",
            "../x.mp4 00:05-00:09",
            "Zoe.mp4 0:75-2:00",
        ],
        "WDA_resolution": ["AnnDoe2.mp4 1080", "AnnDoe1.mp4 0", "Bob.mp4 720", "../x.mp4 720", "Zoe.mp4 720"],
        "WDA_crop_wh": [
            f"{name}_0.mp4 100 200 50 200" for name in ("AnnDoe2", "AnnDoe1", "Bob", "../x", "Zoe", "Nobody")
        ],
    }
    for name, lines in lists.items():
        (folder / f"{prefix}{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("prefix", ["", "HDTF_"])
def test_hdtf(tmp_path: Path, prefix: str) -> None:
    found = read_catalogue("hdtf", write_hdtf(tmp_path, prefix))
    assert [clip.clip for clip in found.clips] == ["RD_Radio11_0", "RD_Radio11_1", "WDA_AnnDoe2_0"]
    first, second, third = found.clips
    assert (first.start_s, first.end_s, second.start_s, second.end_s) == (30.0, 60.0, 90.0, 150.0)
    assert first.url == WATCH + "aaaaaaaaaaa" and first.video == second.video == "yt_aaaaaaaaaaa"
    # The four numbers are left, width, top, height, in pixels of a video 720 high.
    assert first.crop == ListedCrop(left=412, top=0, right=1011, bottom=599, reference_height=720)
    assert second.crop is not None and second.crop.pixels(1920, 1080) == (836, 18, 716, 718)
    assert (first.person, third.person) == (None, "AnnDoe") and "CC-BY-4.0" in first.licence
    told = [str(bad) for bad in found.bad]
    for place, problem in (
        (f"{prefix}RD_video_url.txt, line 2", "Radio24 has no time stamps"),
        (f"{prefix}RD_crop_wh.txt, line 3", "3 fields after the name, 4 wanted"),
        (f"{prefix}RD_annotion_time.txt, line 1", "clip 2 of Radio11 has no crop"),
        (f"{prefix}WDA_crop_wh.txt, line 2", "AnnDoe1 has no usable resolution (0)"),
        (f"{prefix}WDA_crop_wh.txt, line 3", "begins with http"),
        (f"{prefix}WDA_crop_wh.txt, line 4", "clip: String should match"),
        (f"{prefix}WDA_crop_wh.txt, line 5", "'0:75' is no time"),
        (f"{prefix}WDA_video_url.txt, line 6", "AnnDoe1 is a duplicate"),
        (f"{prefix}WDA_crop_wh.txt, line 6", "Nobody_0 has a crop but no time stamps"),
    ):
        assert any(line.startswith(place) and problem in line for line in told), (place, problem, told)
    assert len(told) == 9


def test_hdtf_times() -> None:
    assert (seconds("01:35"), seconds("1:02:03"), seconds("90:00")) == (95.0, 3723.0, 5400.0)
    for wrong in ("35", "1:60", "1:2:3:4", "a:b", "1:-2"):
        with pytest.raises(ValueError, match=r"no time|invalid literal"):
            seconds(wrong)


def test_hdtf_real_lists() -> None:
    folder = Path(os.environ.get("DF_TEST_DATA") or "../shared/data").resolve() / "hdtf_lists"
    if not folder.is_dir():
        pytest.skip(f"no real test data: set DF_TEST_DATA (no folder {folder})")
    found = read_catalogue("hdtf", folder)
    hours = sum(clip.seconds or 0 for clip in found.clips) / 3600
    # 421 clips have a crop; those of KevinMcCarthy1 (two) come with a resolution of 0.
    assert (len(found.clips), len(found.videos()), round(hours, 2)) == (419, 354, 16.34)
    reasons = [bad.problem for bad in found.bad]
    assert sum("has no crop" in reason for reason in reasons) == 15
    assert sum("resolution" in reason for reason in reasons) == 2
    assert sum("no time stamps" in reason for reason in reasons) == 1 and len(reasons) == 18
    assert len({clip.person for clip in found.clips if clip.person}) == 216
    assert all(clip.video.startswith("yt_") and clip.crop for clip in found.clips)


def test_celebvhq(tmp_path: Path) -> None:
    record = {
        "ytb_id": "M2Ohb0FAaJU",
        "duration": {"start_sec": 81.62, "end_sec": 86.17},
        "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922},
        "attributes": {"appearance": [0, 1, 1], "action": [0], "emotion": {"sep_flag": False, "labels": "neutral"}},
        "version": "v0.1",
    }
    clips = {
        "M2Ohb0FAaJU_1": record,
        "no_box": {key: value for key, value in record.items() if key != "bbox"},
        "../up": record,
        "bad_id": record | {"ytb_id": "--exec rm"},
        "backwards": record | {"duration": {"start_sec": 5, "end_sec": 4}},
        "nan": record | {"duration": {"start_sec": float("nan"), "end_sec": 4}},
        "empty_box": record | {"bbox": {"top": 0.5, "bottom": 0.5, "left": 0, "right": 1}},
        "text": "text",
        "huge": record | {"duration": {"start_sec": 0, "end_sec": 1e300}},
    }
    document = {"meta_info": {"appearance_mapping": ["Blurry", "Male", "Young"]}, "clips": clips}
    (tmp_path / "celebvhq_info.json").write_text(json.dumps(document))
    for path in (tmp_path, tmp_path / "celebvhq_info.json"):
        found = read_catalogue("celebvhq", path)
        (clip,) = found.clips
        assert clip.url == WATCH + "M2Ohb0FAaJU" and (clip.start_s, clip.end_s) == (81.62, 86.17)
        assert clip.crop is not None and clip.crop.pixels(1920, 1080) == (378, 0, 952, 952)
        assert clip.person is None and clip.provenance["appearance"] == "Male, Young"
        assert len(found.bad) == len(clips) - 1 and all(bad.file == "celebvhq_info.json" for bad in found.bad)
    assert "'bbox' is missing" in str(found.bad[0])


def test_vfhq(tmp_path: Path) -> None:
    lines = "VIDEO x\nH 1080\nW 1920\nFPS 29.97\nCROP 600 100 1112 612\n0 1 2 3 4\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Clip+abcdefghijk+P1+C2+F300-449.txt").write_text(lines)
    (tmp_path / "a" / "Clip+abcdefghijk+P1+C3.txt").write_text(lines)
    (tmp_path / "a" / "Clip+abcdefghijk+P0+C0+F9-9.txt").write_text(lines)
    (tmp_path / "a" / "Clip+abc+P0+C0+F1-90.txt").write_text(lines)
    (tmp_path / "a" / "Clip+abcdefghijk+P0+C1+F1-90.txt").write_text("H 1080\nW 1920\nFPS 0\nCROP 1 2 3 4\n")
    (tmp_path / "readme.txt").write_text("not a clip")
    (tmp_path / "a" / "Clip+bbbbbbbbbbb+P0+C0+F0-90.txt").write_text("Height: 10\nWidth: 20\nFPS: 30\nCROP: 1 2 3 4")
    found = read_catalogue("vfhq", tmp_path)
    clip, other = found.clips
    assert other.crop == ListedCrop(left=1, top=2, right=3, bottom=4, reference_width=20, reference_height=10)
    assert clip.clip == "abcdefghijk_P1_C2_F300-449" and clip.person == "abcdefghijk_P1"
    # Frames 301 to 448 are used, so the clip ends before frame 449.
    assert (clip.start_s, clip.end_s) == (301 / 29.97, 449 / 29.97)
    assert clip.crop is not None and clip.crop.pixels(960, 540) == (300, 50, 256, 256)
    assert len(found.bad) == 4


def test_talkvid(tmp_path: Path) -> None:
    record = {
        "id": "videovideoTr6MMsoWAog-scene1-scene1",
        "height": 1080,
        "width": 1920,
        "fps": 24.0,
        "start-time": 0.1,
        "end-time": 5.141666666666667,
        "info": {"Person ID": "597", "Video Link": WATCH + "Tr6MMsoWAog", "Language": "English"},
    }
    wrong = [
        record | {"id": "a/../../b"},
        {"id": "c"},
        5,
        record,
        record | {"id": "e", "info": {"Video Link": "file:///x"}},
    ]
    (tmp_path / "clips.json").write_text(json.dumps([record, *wrong]))
    (tmp_path / "more.jsonl").write_text(
        json.dumps(record | {"id": "f", "info": record["info"] | {"Person ID": None}}) + "\n{\n"
    )
    found = read_catalogue("talkvid", tmp_path)
    clip, other = found.clips
    assert (clip.clip, clip.start_s, clip.end_s) == (record["id"], 0.1, 5.141666666666667)
    assert (clip.person, other.person, clip.crop) == ("person_597", None, None) and "NC" in clip.licence
    assert [bad.place for bad in found.bad] == ["record 2", "record 3", "record 4", "record 5", "record 6", "line 2"]


def test_panda70m(tmp_path: Path) -> None:
    header = "videoID,url,timestamp,caption,matching_score,desirable_filtering\n"
    times = (
        "[['0:00:08.875', '0:00:19.185'], ['0:01:00.000', '1:02:03.5'], ['0:00:00', '0:00:01'], ['0:00:61', '0:02:00']]"
    )
    said = "[\"A cat's  nap.\", 'A \"\"b\"\".', 'c', 'd']".replace('"', '""').replace('""""', '""')
    good = f'aaaaaaaaaaa,{WATCH}aaaaaaaaaaa,"{times}","{said}","[0.5, 0.25, 0.1, 0.1]",'
    good += "\"['desirable', 'desirable', '1_still_foreground_image', 'desirable']\"\n"
    code = f"bbbbbbbbbbb,{WATCH}bbbbbbbbbbb,__import__('os').getcwd(),[],[],[]\n"
    code += f"ccccccccccc,{WATCH}ccccccccccc,{{[]: 1}},[],[],[]\n"
    code += f"ddddddddddd,{WATCH}ddddddddddd,\"[['0:00:00', '0:00:01']]\",[],[1e999],[]\n"
    (tmp_path / "list.csv").write_text(header + good + code, encoding="utf-8")
    found = read_catalogue("panda70m", tmp_path)
    first, second = found.clips
    assert (first.clip, first.start_s, first.end_s) == ("aaaaaaaaaaa_00000", 8.875, 19.185)
    assert first.caption == "A cat's nap." and first.provenance == {"matching_score": 0.5}
    assert (second.end_s, first.person, first.crop) == (3723.5, None, None)
    assert [bad.problem for bad in found.bad] == [
        "clip 2 is not desirable (1_still_foreground_image)",
        "'0:00:61' is no time (h:mm:ss.fff)",
        "timestamp is no list",
        "timestamp is no list",
        "matching_score is inf",
    ]
    (tmp_path / "list.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column 'videoID'"):
        read_catalogue("panda70m", tmp_path)


def test_layouts(tmp_path: Path) -> None:
    def touch(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / names[0].split("/")[0]

    grid = read_catalogue("grid", touch("g/s1/bbaf2n.mpg", "g/s34/video/lbax4n.mpg", "g/others/x.mpg", "g/a.txt"))
    assert [(clip.clip, clip.person) for clip in grid.clips] == [
        ("others_x", None),
        ("s1_bbaf2n", "s1"),
        ("s34_video_lbax4n", "s34"),
    ]
    vox = read_catalogue("voxceleb2", touch("v/dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "v/stray.mp4"))
    (clip,) = vox.clips
    assert (clip.clip, clip.person) == ("id00012_21Uxsk56VDQ_00001", "id00012") and vox.local
    assert [bad.file for bad in vox.bad] == ["stray.mp4"]
    plain = read_catalogue("folder", touch("f/A b.mp4", "f/sub/c.MKV", "f/no.txt"))
    assert [clip.clip for clip in plain.clips] == ["A_b", "sub_c"]


@pytest.mark.parametrize("name", READERS)
def test_missing_lists_are_a_users_mistake(name: str, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError):
            read_catalogue(name, path)  # type: ignore[arg-type]
    (tmp_path / "celebvhq_info.json").write_text("{")
    (tmp_path / "x.json").write_text('{"a": 1}')
    for other in ("celebvhq", "talkvid"):
        with pytest.raises(UserError, match="JSON"):
            read_catalogue(other, tmp_path)  # type: ignore[arg-type]


def test_a_missing_list_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no list .*celebvhq_info\.json; give .* with --lists$"):
        read_catalogue("celebvhq", tmp_path)


def test_lists_of_noise_are_counted_not_crashed_on(tmp_path: Path) -> None:
    import random

    generator = random.Random(0)
    write_hdtf(tmp_path)
    originals = {path: path.read_bytes() for path in tmp_path.glob("*.txt")}
    for _ in range(200):
        for path, data in originals.items():
            noisy = bytearray(data)
            for _ in range(generator.randrange(8)):
                noisy[generator.randrange(len(noisy))] = generator.randrange(256)
            path.write_bytes(bytes(noisy[: generator.randrange(len(noisy))] if generator.random() < 0.2 else noisy))
        for clip in read_catalogue("hdtf", tmp_path).clips:
            assert "/" not in clip.clip and ".." not in clip.video


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a/b.mp4",
        "http:///b.mp4",
        "http://user:secret@a/b.mp4",
        "http://a/b c.mp4",
        "http://a/b\n.mp4",
        "http://a/\x00.mp4",
        "-oname",
        "",
        "https://" + "a" * 3000,
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="web address"):
        canonical_url(url)


def test_one_youtube_video_has_one_address_and_one_name() -> None:
    video = "-_9aZ1bY2cX"
    for url in (
        f"https://www.youtube.com/watch?v={video}&t=6s",
        f"http://m.youtube.com/watch?list=x&v={video}",
        f"https://youtu.be/{video}?t=3",
        f"https://www.youtube.com/shorts/{video}",
        f"https://www.youtube.com/embed/{video}",
    ):
        assert canonical_url(url) == youtube_url(video)
        assert video_key(url) == f"yt_{video}"
    strange = "https://www.youtube.com/watch?v=../../etc"
    assert canonical_url(strange) == strange and video_key(strange).startswith("web_")
    assert video_key("http://a/../../x.mp4").startswith("web_") and "/" not in video_key("http://a/../../x.mp4")


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "a\\b", "a\n", "é", "x" * 121, "a b", "nul\0"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        CatalogueClip(clip=name, dataset="d", url="http://a/b.mp4", licence="x")
    with pytest.raises(ValidationError):
        CatalogueClip(clip="c", dataset="d", url="http://a/b.mp4", licence="x", person=name)


def test_pieces_cover_a_clip_without_gap_or_overlap() -> None:
    clip = CatalogueClip(clip="c", dataset="d", url="http://a/b.mp4", licence="x", start_s=5.0, end_s=36.0)
    pieces = into_pieces(clip, 10.0)
    assert [(p.clip, p.start_s, p.end_s) for p in pieces] == [("c-000", 5, 15), ("c-001", 15, 25), ("c-002", 25, 36)]
    longer = into_pieces(clip.model_copy(update={"end_s": 37.0}), 10.0)
    assert [(p.start_s, p.end_s) for p in longer] == [(5, 15), (15, 25), (25, 35), (35, 37)]
    for whole in (clip.model_copy(update={"end_s": None}), clip.model_copy(update={"end_s": 17.0})):
        assert into_pieces(whole, 10.0) == [whole]
    assert into_pieces(clip, None) == [clip]
    with pytest.raises(UserError, match="too long"):
        into_pieces(clip.model_copy(update={"clip": "c" * 111}), 10.0)


EXAMPLES = {
    "grid": ("s1/bbaf2n.mpg", "s34/video/lbax4n.mpg"),
    "voxceleb2": ("dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "dev/mp4/id00013/31Uxsk56VDQ/00001.mp4"),
    "folder": ("A b.mp4", "sub/c.MKV"),
}


def laid_out(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_a_build_reads_a_layout_as_plan_does(name: LocalName, tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "set", *EXAMPLES[name])
    found = read_catalogue(name, folder)
    source = SourceConfig(name="ours", folder=Location(str(folder)), layout=name, licence="CC-BY-4.0")
    built = list_inputs((source,), SplitConfig(val=1))
    assert [made.path for made in built] == [clip.path for clip in found.clips]
    for made, clip in zip(built, found.clips, strict=True):
        assert made.licence == "CC-BY-4.0" and made.listed == (clip.person is not None)
        assert clip.person is None or made.identity == f"ours-{clip.person}"
    assert {made.split for made in built} == {"train", "val"}


def test_a_layout_gives_the_licence_and_takes_the_place_of_pattern_and_rule(tmp_path: Path) -> None:
    folder = laid_out(tmp_path, *EXAMPLES["voxceleb2"])
    source = {"name": "vox", "folder": str(folder), "layout": "voxceleb2"}
    (made, _) = list_inputs((SourceConfig.model_validate(source),), SplitConfig(val=1))
    assert made.licence.startswith("CC-BY-4.0 (VoxCeleb2")
    for wrong, message in (
        ({"layout": "folder"}, "write the videos' licence"),
        ({"pattern": "*/*.mp4"}, "leave out pattern"),
        ({"identity": "top"}, "leave out pattern and identity"),
    ):
        with pytest.raises(ValidationError, match=message):
            SourceConfig.model_validate(source | wrong)
    laid_out(tmp_path, "stray.mp4")
    with pytest.raises(UserError, match=r"source 'vox': 1 files do not lie as voxceleb2 does, the first is stray"):
        list_inputs((SourceConfig.model_validate(source),), SplitConfig(val=1))


def test_every_catalogue_is_read_by_its_name() -> None:
    assert set(READERS) == set(get_args(DatasetName)) and set(get_args(LocalName)) == LOCAL
    assert set(EXAMPLES) == LOCAL, "an example of each layout is built above"


def test_the_page_on_adding_a_source_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[4] / "docs" / "how-to" / "source.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.setattr("df_data.sources.catalogue.layouts.LAYOUTS", layouts.LAYOUTS.copy())
    exec(compile(code, str(page), "exec"), {})
    folder = laid_out(tmp_path, "ann/1/a.mkv", "bob/2/b.mkv", "c.mkv")
    found = layouts.read_layout("sessions", folder)  # type: ignore[arg-type]
    assert [(clip.person, clip.provenance["session"]) for clip in found.clips] == [("ann", "1"), ("bob", "2")]
    assert [bad.file for bad in found.bad] == ["c.mkv"] and found.licence == "CC-BY-4.0"
