"""`df-data people` on looks that are told what to see: groups, names, resume, crashes, and the way into a build."""

from __future__ import annotations

import json
import math
from pathlib import Path

import fake_looks
import pytest
from fake_looks import FakeLooks

from df_data import cli
from df_data.build.build import fingerprint
from df_data.build.config import BuildConfig
from df_data.people import find
from df_data.people.find import find_people
from df_data.people.journal import open_journal
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.sources.listing import list_inputs
from df_data.sources.person import PersonRecord, read_people
from df_models.errors import UserError


def configured(root: Path, looks: dict[str, str], identity: str = "file", **others: object) -> BuildConfig:
    """A build of files whose text says what a look sees."""
    for name, text in looks.items():
        path = root / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    source = SourceConfig(
        name="s", folder=str(root / "videos"), pattern="**/*.mp4", identity=identity, licence="CC0-1.0"
    )
    return BuildConfig(out=str(root / "out"), sources=(source,), **{"workers": 1} | others)  # type: ignore[arg-type]


def found(config: BuildConfig, out: Path) -> find.PeopleSummary:
    fake_looks.SEEN.clear()
    return find_people(config, out, progress=False, make=FakeLooks)


LOOKS = {"a.mp4": "face 0", "b.mp4": "face 20", "c.mp4": "face 90", "d.mp4": "none", "e.mp4": "crowd", "f.mp4": "fail"}


def test_every_input_has_its_line(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    summary = found(configured(tmp_path, LOOKS), out)
    records = read_people(out)
    assert list(records) == [f"s/{name}" for name in LOOKS]
    assert [record.person for record in records.values()] == ["s-a", "s-a", "s-c", None, None, None]
    assert [record.reason for record in records.values()][3:] == ["no_face", "more_than_one_face", "failed"]
    a = records["s/a.mp4"]
    assert (a.nearest, a.cosine, a.faces, a.agreement) == ("s/b.mp4", round(math.cos(math.radians(20)), 4), 5, 0.9)
    assert (summary.inputs, summary.looked, summary.people) == (6, 6, 2)
    assert summary.reasons == {"no_face": 1, "more_than_one_face": 1, "failed": 1}
    assert summary.largest == (("s-a", 2), ("s-c", 1)) and summary.doubts == ()


def test_only_what_is_new_or_changed_or_failed_is_looked_at(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    found(configured(tmp_path, LOOKS), out)
    first = out.read_bytes()
    found(configured(tmp_path, {}), out)
    assert fake_looks.SEEN == ["s/f.mp4"] and out.read_bytes() == first
    found(configured(tmp_path, {"b.mp4": "face 175", "g.mp4": "face 170", "f.mp4": "face 5"}), out)
    assert fake_looks.SEEN == ["s/b.mp4", "s/f.mp4", "s/g.mp4"]
    other = configured(tmp_path, {}).model_copy(deep=True)
    faces = other.stages.faces.model_copy(update={"other_face": 0.5})
    found(other.model_copy(update={"stages": other.stages.model_copy(update={"faces": faces})}), out)
    assert len(fake_looks.SEEN) == 7  # another setting of the look: everything again


def test_a_torn_line_is_looked_at_again(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    found(configured(tmp_path, LOOKS), out)
    first, looks = out.read_bytes(), tmp_path / "people.jsonl.looks"
    lines = looks.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        looks.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
        out.unlink()
        found(configured(tmp_path, {}), out)
        assert len(fake_looks.SEEN) == len(lines) - kept and out.read_bytes() == first
    looks.write_bytes(b"{}\n" + lines[0])
    with pytest.raises(UserError, match="line 1 is damaged"):
        found(configured(tmp_path, {}), out)


def test_an_input_that_kills_its_worker_is_the_only_one_lost(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    config = configured(tmp_path, {**LOOKS, "b.mp4": "die"}, workers=2, retries=0)
    found(config, out)
    records = read_people(out)
    assert records["s/b.mp4"].reason == "failed" and "signal 9" in str(records["s/b.mp4"].detail)
    assert [records[f"s/{n}.mp4"].person for n in "ac"] == ["s-a", "s-c"]


def test_a_link_to_nowhere_is_a_line_not_a_crash(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    config = configured(tmp_path, {"a.mp4": "face 0"})
    (tmp_path / "videos" / "b.mp4").symlink_to(tmp_path / "gone")
    found(config, out)
    assert read_people(out)["s/b.mp4"].reason == "failed"
    assert inputs_of(configured(tmp_path, {}, f"people:{out}"))["s/b.mp4"][0] == "s-b"


def test_names_stay_when_videos_come(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    found(configured(tmp_path, {"m.mp4": "face 0", "n.mp4": "face 100"}), out)
    found(configured(tmp_path, {"a.mp4": "face 5", "b.mp4": "face 200"}), out)
    assert {name: r.person for name, r in read_people(out).items()} == {
        "s/a.mp4": "s-m", "s/b.mp4": "s-b", "s/m.mp4": "s-m", "s/n.mp4": "s-n",
    }  # fmt: skip
    found(configured(tmp_path, {"c.mp4": "face 50"}), out)  # between m and n: a chain joins them (cosine 0.64)
    assert {r.person for r in read_people(out).values()} == {"s-m", "s-b"}


def test_doubtful_links_are_listed_the_nearest_to_the_threshold_first(tmp_path: Path) -> None:
    looks = {"a.mp4": "face 0", "b.mp4": "face 50", "c.mp4": "face 105", "d.mp4": "face 200", "e.mp4": "face 205"}
    summary = found(configured(tmp_path, looks), tmp_path / "people.jsonl")
    assert [(d.first, d.second, d.joined) for d in summary.doubts] == [
        ("s/b.mp4", "s/c.mp4", False),
        ("s/a.mp4", "s/b.mp4", True),
    ]
    text = "\n".join(summary.lines(1))
    assert "2 pairs" in text and "0.574 taken for two: s/b.mp4  s/c.mp4" in text and "0.643" not in text


def test_persons_that_the_source_names_are_joined_not_contradicted(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    looks = {
        "ann/1.mp4": "face 0", "ann/2.mp4": "face 90", "ann/3.mp4": "none",
        "bob/1.mp4": "face 180", "bob/2.mp4": "face 185", "eve/1.mp4": "face 95",
    }  # fmt: skip
    summary = found(configured(tmp_path, looks, "top"), out)
    people = {name.removeprefix("s/"): record.person for name, record in read_people(out).items()}
    assert people == {
        "ann/1.mp4": "s-ann", "ann/2.mp4": "s-ann", "ann/3.mp4": "s-ann",
        "bob/1.mp4": "s-bob", "bob/2.mp4": "s-bob", "eve/1.mp4": "s-ann",
    }  # fmt: skip
    assert summary.one_person == {"s-ann": ("s-ann", "s-eve")} and summary.unlike == {"s-ann": 2}
    text = "\n".join(summary.lines(5))
    assert "listed as 2 persons, by their faces one: s-ann, s-eve -> s-ann" in text
    assert "listed as one person, by their faces 2: s-ann" in text
    again = found(configured(tmp_path, {}, f"top+people:{out}"), out)
    assert again.one_person == summary.one_person and again.looked == 0


def test_two_runs_on_one_file_refuse_each_other(tmp_path: Path) -> None:
    config = configured(tmp_path, LOOKS)
    with open_journal(tmp_path / "p.jsonl.looks"), pytest.raises(UserError, match="another process is writing"):
        found(config, tmp_path / "p.jsonl")
    with pytest.raises(UserError, match=r"cannot write .*nowhere/p\.jsonl: .* does not exist; create it first"):
        found(config, tmp_path / "nowhere" / "p.jsonl")
    with pytest.raises(UserError, match="is a directory"):
        found(config, tmp_path)


def test_a_damaged_people_file_is_told_before_anything_is_looked_at(tmp_path: Path) -> None:
    out, config = tmp_path / "people.jsonl", configured(tmp_path, LOOKS)
    found(config, out)
    whole = out.read_text()
    configured(tmp_path, {"g.mp4": "face 170"})
    for damaged in (whole.replace('"s-a"', '"a b"', 1), whole + whole):
        out.write_text(damaged)
        with pytest.raises(UserError, match="delete it and run df-data people again; the journal keeps the looks"):
            found(config, out)
        assert fake_looks.SEEN == []
    out.unlink()
    found(config, out)
    assert fake_looks.SEEN == ["s/f.mp4", "s/g.mp4"] and read_people(out)["s/b.mp4"].person == "s-a"


# -------------------- into the build


def inputs_of(config: BuildConfig) -> dict[str, tuple[str, str]]:
    listed = list_inputs(config.sources, SplitConfig(by="identity", val=1))
    return {made.name: (made.identity, made.split) for made in listed}


def test_a_build_takes_the_person_from_the_file(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    found(configured(tmp_path, LOOKS), out)
    inputs = inputs_of(configured(tmp_path, {}, f"people:{out}"))
    assert [person for person, _ in inputs.values()] == ["s-a", "s-a", "s-c", "s-d", "s-e", "s-f"]
    assert inputs["s/a.mp4"] == inputs["s/b.mp4"]  # one side of the split


def test_the_assignment_is_part_of_what_decides_the_bytes(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    found(configured(tmp_path, LOOKS), out)
    config = configured(tmp_path, {}, f"people:{out}")

    def made_by() -> str:
        return fingerprint(config, list_inputs(config.sources, config.split), {})[0]

    before = made_by()
    assert made_by() == before
    records = read_people(out)
    records["s/b.mp4"] = records["s/b.mp4"].model_copy(update={"person": "s-c"})
    out.write_text("".join(record.model_dump_json() + "\n" for record in records.values()))
    assert made_by() != before


def test_what_the_file_does_not_tell_is_an_error_of_one_line(tmp_path: Path) -> None:
    out = tmp_path / "people.jsonl"
    config = configured(tmp_path, LOOKS, f"people:{out}")
    with pytest.raises(UserError, match=r"no people file .*df-data people --config CONFIG --out"):
        inputs_of(config)
    found(config, out)
    configured(tmp_path, {"new.mp4": "face 0"})
    with pytest.raises(UserError, match=r"s/new\.mp4 is not in the people file .* again"):
        inputs_of(config)
    found(config, out)
    configured(tmp_path, {"a.mp4": "face 0000"})
    with pytest.raises(UserError, match=r"s/a\.mp4 has another size"):
        inputs_of(config)
    out.write_text(PersonRecord(input="x", bytes=1).model_dump_json() + "\nno json\n")
    with pytest.raises(UserError, match="line 2 is damaged"):
        inputs_of(config)


def test_the_setting_is_checked_when_the_config_is_read(tmp_path: Path) -> None:
    for wrong in ("peple:x", "top+x", "toppeople:x", "+people:x", ""):
        with pytest.raises(ValueError, match="people:FILE"):
            configured(tmp_path, {"a.mp4": ""}, wrong)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path, LOOKS, f"people:{tmp_path / 'named.jsonl'}")
    (tmp_path / "c.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    asked = []

    def fake(config: BuildConfig, out: Path) -> find.PeopleSummary:
        asked.append((config.workers, out))
        return find_people(config, out, progress=False, make=FakeLooks)

    monkeypatch.setattr("df_data.people.find.find_people", fake)
    assert cli.main(["people", "--config", str(tmp_path / "c.yaml"), "timeout_s=5"]) == 0
    assert cli.main(["people", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "o.jsonl")]) == 0
    assert asked == [(1, tmp_path / "named.jsonl"), (1, tmp_path / "o.jsonl")]
    assert f"{tmp_path / 'named.jsonl'}: 6 inputs (6 looked at now), 2 people" in capsys.readouterr().out


def test_a_network_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models\.face_identity: null.*MobileFaceNet"):
        find_people(configured(tmp_path, LOOKS), tmp_path / "p.jsonl", progress=False)
