"""What a codec keeps and changes, and what is told of SyncNet's scores behind it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricated import outcome_of

from df_eval.metrics import Pair
from df_eval.reports.output import write_outcome
from df_eval.rows.codec import SOUND, VIDEO, sound_through, through
from df_eval.rows.sync_codecs import AS_MEASURED, SPREAD, SyncCodecs

SIZE = 64


@pytest.mark.parametrize("codec", SOUND)
def test_a_codec_of_sound_keeps_its_place_and_length_and_changes_it(codec: str) -> None:
    random = np.random.default_rng(0).normal(size=640 * 50)
    wave = (0.3 * np.convolve(random, np.ones(8) / 8, "same")).astype(np.float32)
    coded = sound_through(codec, wave)
    assert coded.shape == wave.shape and not np.array_equal(coded, wave)
    own = wave[2000:-2000]
    alike = [float(np.dot(own, coded[2000 + lag : len(coded) - 2000 + lag])) for lag in range(-1500, 1501)]
    assert int(np.argmax(alike)) == 1500, "not a sample late"
    assert np.corrcoef(wave, coded)[0, 1] > 0.98


@pytest.mark.parametrize("codec", VIDEO)
def test_a_codec_of_images_changes_them_a_little(codec: str) -> None:
    slope = np.broadcast_to(np.linspace(20, 230, SIZE)[:, None, None], (SIZE, SIZE, 3))
    frames = np.stack([np.roll(slope, 2 * step, axis=0) for step in range(9)]).astype(np.uint8)
    coded = through(codec, frames)
    assert coded.shape == frames.shape and 0 < np.abs(coded.astype(int) - frames).mean() < 12


def test_the_spread_is_over_all_codecs_and_none_where_one_is_missing() -> None:
    found = SyncCodecs(129, ["a", "b"])
    values = {AS_MEASURED: 7.0, "h264": 6.5, "h265": 6.0, "aac": 7.5, "mp3": 6.9}
    for codec, value in values.items():
        for index in range(2):
            missing = Pair.undefined("no face") if codec == "mp3" else Pair(8.0)
            found.add("generated", codec, index, [Pair(value + index), missing, Pair(0.0)])
    scores = found.scores(0, 100)["generated"]
    assert [*scores] == [*values, SPREAD]
    assert scores["h264"]["sync_c"].value == 7.0 and scores["h264"]["sync_c"].people == 2
    assert scores[SPREAD]["sync_c"].value == pytest.approx(1.5)
    assert scores[SPREAD]["sync_d"].value is None and scores[SPREAD]["sync_offset"].value == 0.0


def test_the_report_tells_the_scores_or_why_there_are_none(tmp_path: Path) -> None:
    found = SyncCodecs(65, [str(index) for index in range(4)])
    for index in range(4):
        for codec, value in ((AS_MEASURED, 7.0), ("h265", 6.2)):
            found.add("generated", codec, index, [Pair(value), Pair(8.0), Pair(1.0)])
    outcome = outcome_of(tmp_path / "none.jsonl")
    write_outcome(replace(outcome, sync_codecs=found, videos={}), tmp_path / "out")
    for name in ("table.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "SyncNet behind codecs, 65 frames" in text and "H.265 (x265, crf 28)" in text and "0.80" in text, name
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())["sync_codecs"]["rows"]
    assert rows["generated"][SPREAD]["sync_c"]["value"] == pytest.approx(0.8)
    without = replace(outcome, sync_codecs=SyncCodecs(65, [], missing="no SyncNet"), videos={})
    write_outcome(without, tmp_path / "out")
    assert "no SyncNet" in (tmp_path / "out" / "table.md").read_text()
