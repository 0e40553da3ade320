"""Turn and mirror flags are heeded; a mirrored head is read as turned the other way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.stages.scene import Scene
from benchmarks.stages.talks import Models, Talk
from benchmarks.stages.turning import UPRIGHT_DB, mirrored_fields, psnr, turned_file


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.make(1, 1, 2.2)


@pytest.fixture(scope="module")
def images(scene: Scene) -> np.ndarray:
    drawn = scene.images(np.arange(0, 55, 11) / 25, 96)
    return np.repeat(drawn, 11, axis=0)[:, :80]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_images_are_decoded_as_a_player_shows_them(
    turn: int, mirrored: bool, scene: Scene, images: np.ndarray, tmp_path: Path
) -> None:
    found = turned_file(turn, mirrored, scene, images, tmp_path)
    assert psnr(found, images) > UPRIGHT_DB
    assert psnr(found, images[:, :, ::-1]) < 20 and psnr(found, images[:, ::-1]) < 20


def test_a_mirrored_head_turns_the_other_way(rendered: list[Talk], models: Models) -> None:
    fields = mirrored_fields(rendered[0], models)
    for name in ("yaw", "roll", "translation x", "pitch"):
        correlation, slope = fields[name]
        assert correlation > 0.9 and 0.8 < slope < 1.2, fields
    assert fields["expression"][0] > 0.85


def test_angles_are_the_true_ones(rendered: list[Talk]) -> None:
    for talk in rendered:
        for name in ("yaw", "roll"):
            truth = talk.known.truth[name]
            assert np.abs(getattr(talk.readings, name) - truth).mean() < 2.5, name
            assert np.corrcoef(getattr(talk.readings, name), truth)[0, 1] > 0.85, name
