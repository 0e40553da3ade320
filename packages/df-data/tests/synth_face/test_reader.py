"""The shipped reader on unseen people, and the recipe that made it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.synth.reader_augment import coarsen, gaussian_blur, negatives, quantize_blocks
from benchmarks.synth.reader_data import ReaderSet, random_set
from benchmarks.synth.reader_report import TEST_IDENTITIES, as_images, disturbed, measure, report
from benchmarks.synth.reader_train import ReaderRecipe, save_reader, train_reader
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.identity import IDENTITY_DIM, Identity
from df_data.synth.head.render import render
from df_data.synth.reader import SynthReader, load_reader
from df_models.errors import UserError

PEOPLE, STATES = 32, 6


@pytest.fixture(scope="module")
def reader() -> SynthReader:
    return load_reader()


@pytest.fixture(scope="module")
def unseen() -> ReaderSet:
    return random_set(5, PEOPLE, STATES, TEST_IDENTITIES + 5000)


def test_clean_images_of_unseen_people(reader: SynthReader, unseen: ReaderSet) -> None:
    errors = measure(reader, as_images(unseen), unseen)
    assert errors.correlation["mouth_open"] >= 0.97 and errors.mae["mouth_open"] < 0.015
    assert errors.correlation["blink"] >= 0.95 and errors.correlation["lip_width"] >= 0.93
    assert errors.mae["yaw"] < 2.0 and errors.mae["pitch"] < 2.0 and errors.mae["roll"] < 1.5
    assert errors.same_person < 0.6 * errors.other_person
    assert errors.present > 0.98


def test_blurred_images(reader: SynthReader, unseen: ReaderSet) -> None:
    errors = measure(reader, disturbed(as_images(unseen), blur=1.5, noise=0.0), unseen)
    assert errors.correlation["mouth_open"] >= 0.9
    assert errors.mae["yaw"] < 3.0 and errors.present > 0.9


def test_noisy_images(reader: SynthReader, unseen: ReaderSet) -> None:
    errors = measure(reader, disturbed(as_images(unseen), blur=0.0, noise=0.05), unseen)
    assert errors.correlation["mouth_open"] >= 0.93 and errors.mae["yaw"] < 3.0


def test_mouth_is_read_from_the_mouth(reader: SynthReader) -> None:
    """Brows, lids, pose and light at random: what is read follows the jaw alone."""
    rng = np.random.default_rng(0)
    jaw = np.tile([0.0, 0.5, 1.0], 8)
    tracks = FaceTracks.neutral(
        24, jaw=jaw, brow=rng.uniform(-1, 1, 24), blink=rng.uniform(0, 1, 24), yaw=rng.uniform(-20, 20, 24)
    )
    found = reader.read(render(Identity.sample(1_500_000), tracks).frames).mouth_open
    assert found[jaw == 0].max() < found[jaw == 0.5].min() < found[jaw == 0.5].max() < found[jaw == 1].min()


def test_what_is_no_face_is_rejected(reader: SynthReader, unseen: ReaderSet) -> None:
    others = negatives(as_images(unseen)[:60], torch.Generator().manual_seed(3))
    assert (reader.read(others).presence < 0.5).mean() > 0.9
    assert (reader.read(torch.zeros(1, 3, 64, 64)).presence < 0.5).all()


def test_every_form_of_frames_reads_the_same(reader: SynthReader, unseen: ReaderSet) -> None:
    frames = unseen.images[:4]
    expected = reader.read(frames)
    assert expected.identity.shape == (4, IDENTITY_DIM) and expected.yaw.shape == (4,)
    moved = reader.read(frames.astype(np.float32).transpose(0, 3, 1, 2) / 255)
    tensor = reader.read(torch.from_numpy(frames), batch=3)
    for name in ("yaw", "mouth_open", "presence"):
        np.testing.assert_allclose(getattr(moved, name), getattr(expected, name), atol=1e-4)
        np.testing.assert_allclose(getattr(tensor, name), getattr(expected, name), atol=1e-4)


def test_larger_frames_read_alike(reader: SynthReader) -> None:
    tracks = FaceTracks.neutral(5, jaw=np.linspace(0, 1, 5), yaw=np.linspace(-20, 20, 5))
    small, large = (reader.read(render(Identity.sample(4), tracks, size).frames) for size in (64, 256))
    np.testing.assert_allclose(small.mouth_open, large.mouth_open, atol=0.03)
    np.testing.assert_allclose(small.yaw, large.yaw, atol=3.0)


@pytest.mark.parametrize("shape", [(64, 64, 3), (0, 64, 64, 3), (2, 64, 64, 1)])
def test_wrong_frames_are_refused(reader: SynthReader, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="the reader wants frames"):
        reader.read(np.zeros(shape, np.uint8))


def test_wrong_type_is_refused(reader: SynthReader) -> None:
    with pytest.raises(UserError, match="int64"):
        reader.read(np.zeros((1, 64, 64, 3), np.int64))


def test_missing_or_foreign_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(UserError, match="reader_train"):
        load_reader(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="no reader of this version"):
        load_reader(tmp_path / "other.safetensors")


def test_the_recipe_is_reproducible_and_loads(tmp_path: Path, unseen: ReaderSet) -> None:
    recipe = ReaderRecipe(people=4, states=3, steps=3, batch=16)
    for name in ("a", "b"):
        save_reader(train_reader(recipe, progress=False), tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    found = load_reader(tmp_path / "a.safetensors").read(unseen.images[:2])
    assert np.isfinite(found.mouth_open).all()


def test_report_holds_every_condition(reader: SynthReader) -> None:
    text = report(reader, people=4, states=2, vae=None, command="the command")
    assert "the command" in text and reader.sha256 in text
    assert sum(line.startswith("| blur ") for line in text.splitlines()) == 9


def test_disturbances_do_what_they_say() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[..., 32, 32] = 1.0
    blurred = gaussian_blur(image, 1.5)[0, 0]
    grid = torch.arange(64.0) - 32
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float((blurred.sum(0) * grid**2).sum()) == pytest.approx(1.5**2, rel=0.02)
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64).contiguous()
    torch.testing.assert_close(quantize_blocks(ramp, 0.01), ramp, atol=0.01, rtol=0)
    assert float((coarsen(ramp, 2.0) - ramp).abs().mean()) < 0.01
    assert float((coarsen(image, 2.0) - image).abs().max()) > 0.3
