"""Who is who among real clips: GRID's speakers, and what no single face is seen in."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from df_data.build.config import BuildConfig, ModelPaths
from df_data.people.find import PeopleSummary, find_people
from df_data.sources.config import SourceConfig
from df_data.sources.person import PersonRecord, read_people


@pytest.fixture
def found(real_data: Path, real_weights: Path, tmp_path: Path):
    """(pattern, limit, workers) -> summary and records of so many of speaker s1's clips, all others, and odd ones."""
    pytest.importorskip("onnxruntime")

    def call(limit: int, workers: int, odd: str) -> tuple[PeopleSummary, dict[str, PersonRecord]]:
        folders = (
            ("s1", "grid/s1", "*.mpg", limit),
            ("others", "grid/others", "*.mpg", None),
            ("odd", "odd", odd, None),
        )
        config = BuildConfig(
            out=str(tmp_path / "none"),
            sources=tuple(
                SourceConfig(name=name, folder=str(real_data / folder), pattern=pattern, limit=most, licence="test")
                for name, folder, pattern, most in folders
            ),
            models=ModelPaths(
                face_detector=str(real_weights / "yunet_n_dynamic.onnx"),
                face_identity=str(real_weights / "mobilefacenet_foamliu.onnx"),
            ),
            workers=workers,
        )
        summary = find_people(config, tmp_path / "people.jsonl", progress=False)
        return summary, read_people(tmp_path / "people.jsonl")

    return call


def check(records: dict[str, PersonRecord]) -> None:
    """Every pair of GRID's clips is judged rightly: one speaker is one person, the seven others are seven."""
    grid = {name: record for name, record in records.items() if not name.startswith("odd/")}
    for a, b in combinations(grid, 2):
        same = a.startswith("s1/") and b.startswith("s1/")
        assert (grid[a].person == grid[b].person) == same, (a, b)
    cosines = {name: record.cosine or 0.0 for name, record in grid.items()}
    assert min(cosine for name, cosine in cosines.items() if name.startswith("s1/")) > 0.85
    assert max(cosine for name, cosine in cosines.items() if name.startswith("others/")) < 0.4
    assert all(record.faces >= 4 and (record.agreement or 0) > 0.8 for record in grid.values())


def test_a_few_clips_of_eight_speakers(found) -> None:
    summary, records = found(5, 1, "cat*.mp4")
    check(records)
    assert summary.people == 8 and summary.doubts == () and summary.reasons == {"no_face": 1}
    assert records["odd/cat_no_human_face.mp4"].person is None


@pytest.mark.slow
def test_all_clips_of_eight_speakers_and_odd_videos(found) -> None:
    summary, records = found(250, 2, "*.mp4")
    check(records)
    assert summary.people == 11 and summary.largest[0] == ("s1-bbaf2n", 250)
    assert {name: record.reason for name, record in records.items() if record.reason} == {
        "odd/cat_no_human_face.mp4": "no_face",
        "odd/crowd_many_faces.mp4": "more_than_one_face",
    }
