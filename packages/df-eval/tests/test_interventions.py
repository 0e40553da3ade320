"""Swapped structure and swapped references: what follows which source is found where it is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fabricated import SHIFTS, outcome_of, signal
from tiny import ROLLOUT, DarkBarReader, tiny_clips, tiny_pipeline

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig
from df_eval.measure import GENERATED, Truth
from df_eval.metrics import Pair
from df_eval.reading.readings import FaceReadings
from df_eval.reports.output import write_outcome
from df_eval.rows.generation import Generated
from df_eval.rows.interventions import (
    REFERENCE_SWAPPED,
    STRUCTURE_SWAPPED,
    Interventions,
    intervene,
)
from df_eval.rows.partners import partners
from df_eval.rows.systems import RunSystem
from df_eval.suite import Suite
from df_infer.config import TRUTH
from df_infer.run_dir import UNTOLD, Trained

FRAMES, CLIPS = 49, 4


class PatchReader:
    """Reads mouth, three angles and a one-number identity from grey patches of constructed images."""

    id, truth_note, unavailable = "patches", "constructed", {}

    def read(self, frames_THWC: np.ndarray) -> FaceReadings:
        patches = frames_THWC[:, ::4, 0, 0].astype(np.float64)
        angles, identity = patches[:, 1:4], np.repeat(patches[:, 4:5], 4, axis=1) / 100
        return FaceReadings(np.ones(len(patches), bool), patches[:, 0], angles_TA=angles, identity_TD=identity)


def frames_of(mouth: np.ndarray, angles: np.ndarray, identity: float) -> np.ndarray:
    levels = np.concatenate([mouth[:, None], angles, np.full((len(mouth), 1), identity)], axis=1)
    rows = np.repeat(np.clip(levels, 0, 255).astype(np.uint8), 4, axis=1)
    return np.broadcast_to(rows[:, :, None, None], (len(mouth), 20, 20, 3)).copy()


def person(index: int, identity: str) -> EvalClip:
    """A clip whose structure holds its mouth and angles."""
    mouth = 128 + 60 * signal(FRAMES, 1000 + index)
    angles = np.stack([128 + 60 * signal(FRAMES, index, axis) for axis in range(3)], axis=1)
    structure = torch.from_numpy(np.concatenate([mouth[:, None], angles], axis=1))
    frames = frames_of(mouth, angles, 40 + 50 * index)
    return EvalClip(f"c{index}", identity, frames, np.zeros(640 * FRAMES, np.float32), {}, structure_TV=structure)


@dataclass(frozen=True)
class Obedient(RunSystem):
    """A model whose mouth and pose follow its structure, and whose face is that of the reference image. Without a
    given structure it hears its own clip's."""

    def make(self, clips: list[EvalClip], frames: int, progress: object) -> list[Generated]:
        assert self.rollout.structure_from in (None, TRUTH)
        made = []
        for clip in clips:
            table = clip.structure_TV[:frames].numpy()
            mouth = table[:, 0] + 5 * signal(frames, int(clip.key[1:]), 9)
            made.append(Generated(frames_of(mouth, table[:, 1:], clip.reference_HWC[16, 0, 0]), table))
        return made


def run_of(trained: Trained = UNTOLD, **model: object) -> Obedient:
    config = SimpleNamespace(**({"has_structure": True, "structure_given": "sometimes"} | model))
    pipeline = SimpleNamespace(model=SimpleNamespace(config=config), trained=trained)
    return Obedient(GENERATED, pipeline, ROLLOUT, EvalConfig())  # type: ignore[arg-type]


def truth_of(clip: EvalClip) -> Truth:
    read = PatchReader().read(clip.frames_THWC)
    return Truth(clip.frames_THWC, read, read.identity_TD[0], read.identity_TD.mean(axis=0))


def found(system: Obedient, clips: list[EvalClip]) -> Interventions:
    into, truths = Interventions(FRAMES, [c.identity for c in clips]), [truth_of(c) for c in clips]
    made = system.make(clips, FRAMES, None)
    readings = [PatchReader().read(m.frames_THWC) for m in made]
    intervene(system, clips, truths, readings, PatchReader(), EvalConfig(), into, lambda _: None)
    return into


def test_the_streams_are_told_apart() -> None:
    clips = [person(index, str(index)) for index in range(CLIPS)]
    scores = found(run_of(), clips).scores(0, 200)
    expected = {
        GENERATED: {"mouth": 0, "pose": 0, "identity": 0},
        STRUCTURE_SWAPPED: {"mouth": 1, "pose": 1, "identity": 0},
        REFERENCE_SWAPPED: {"mouth": 0, "pose": 0, "identity": 1},
    }
    assert set(scores) == set(expected)
    for row, shares in expected.items():
        for quantity, share in shares.items():
            sides = scores[row][quantity]
            assert sides["share"].value == pytest.approx(share, abs=0.15), (row, quantity)
            assert sides["share"].n == CLIPS and sides["share"].low <= sides["share"].value <= sides["share"].high
    swapped = scores[STRUCTURE_SWAPPED]["mouth"]
    assert swapped["other"].value > 0.9 and abs(swapped["own"].value) < 0.4
    portrait = scores[REFERENCE_SWAPPED]["identity"]
    assert portrait["own"].value > 0.4 and portrait["other"].value == pytest.approx(0, abs=0.02)


def test_what_cannot_be_made_is_told() -> None:
    alone = [person(index, "one") for index in range(2)]
    into = found(run_of(structure_given="never"), alone)
    assert "was never given all of its structure" in into.missing[STRUCTURE_SWAPPED]
    assert into.missing[REFERENCE_SWAPPED] == "all clips are of one person" and set(into.pairs) == {GENERATED}
    assert "has no structure" in found(run_of(has_structure=False), alone).missing[STRUCTURE_SWAPPED]
    assert "is a distilled student" in found(run_of(Trained(distilled=True)), alone).missing[STRUCTURE_SWAPPED]
    bare = [replace(clip, structure_TV=None) for clip in alone]
    blind = Interventions(FRAMES, ["one", "one"])
    intervene(
        run_of(), bare, [truth_of(c) for c in bare], [None, None], PatchReader(), EvalConfig(), blind, lambda _: None
    )
    assert "no true structure" in blind.missing[STRUCTURE_SWAPPED]


def test_the_other_clip_is_another_person_s() -> None:
    clips = [SimpleNamespace(identity=name) for name in "aabca"]
    assert partners(clips) == [2, 2, 3, 4, 2]  # type: ignore[arg-type]
    assert partners(clips[:2]) == [1, 0] and partners(clips[:1]) == [0]  # type: ignore[arg-type]


def test_the_suite_intervenes_with_a_real_model() -> None:
    torch.set_num_threads(1)
    clips = [
        replace(clip, structure_TV=torch.randn(clip.length, 70, generator=torch.Generator().manual_seed(index)))
        for index, clip in enumerate(tiny_clips(2))
    ]
    config = EvalConfig(frames=(25,), shifts=SHIFTS, resamples=100, interventions=True)
    pipeline = tiny_pipeline(structure_given="sometimes")
    suite = Suite([RunSystem(GENERATED, pipeline, ROLLOUT, config)], DarkBarReader(), clips, config, quiet=True)
    suite.run([25])
    assert suite.interventions is not None and not suite.interventions.missing
    rows = suite.interventions.to_json(0, 100)["rows"]
    assert set(rows) == {GENERATED, STRUCTURE_SWAPPED, REFERENCE_SWAPPED}
    values = [rows[row]["mouth"]["own"]["value"] for row in rows]
    assert len(set(values)) == 3 and all(score["own"]["n"] == 2 for row in rows.values() for score in row.values())


def test_the_report_shows_it(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path / "none.jsonl", clips=1, lengths=(33,))
    into = Interventions(33, ["a", "b", "c", "d"], missing={STRUCTURE_SWAPPED: "the model was <never> given it"})
    for index in range(3):
        sides = {"own": Pair(0.8 + index / 99), "other": Pair(0.0), "share": Pair(0.01 * index)}
        into.add(REFERENCE_SWAPPED, index, {"mouth": sides})
    told = replace(outcome, interventions=into, results={}, videos={})
    page = write_outcome(told, tmp_path / "out", quiet=True)
    assert "the model was &lt;never&gt; given it" in page.read_text() and REFERENCE_SWAPPED in page.read_text()
    assert "share of the other" in (page.parent / "table.md").read_text()
    rows = json.loads((page.parent / "metrics.json").read_text())["interventions"]["rows"]
    assert rows[REFERENCE_SWAPPED]["mouth"]["own"]["n"] == 3
