"""General video, without faces: whole frames, no audio, and none of the tensors of a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from df_data.build.build import build
from df_data.build.config import BuildConfig, ClipConfig
from df_data.check.validate import check_dataset
from df_data.format.ledger import Ledger
from df_data.format.manifest import read_manifest, structure_of
from df_data.format.sample import OF_FACES
from df_data.format.shards import iter_samples
from df_data.reading import ReaderOptions, ShardReader
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.stages.prepare import StageConfig
from df_models.errors import UserError
from df_models.media import write_video
from df_models.settings import Location, load_config

SIZE, FRAMES = 16, 33


def moving_square(seed: int, frames: int = FRAMES, height: int = 48, width: int = 80) -> np.ndarray:
    """A square that moves over a plain ground, uint8 ``[T, H, W, 3]``."""
    colours = np.random.default_rng(seed).integers(40, 216, (2, 3)).astype(np.uint8)
    video = np.empty((frames, height, width, 3), np.uint8)
    for index, frame in enumerate(video):
        x = (index + 5 * seed) % (width - 16)
        frame[:] = colours[0]
        frame[height // 3 : 2 * height // 3, x : x + 16] = colours[1]
    return video


def general_config(folder, out, **changes) -> BuildConfig:
    """A build of the videos in a folder."""
    source = SourceConfig(name="general", folder=Location(folder), licence="CC0-1.0")
    values = {
        "out": Location(out),
        "sources": (source,),
        "split": SplitConfig(),
        "stages": StageConfig(size=SIZE, min_seconds=1.0),
        "clips": ClipConfig(frames=9, stride=24, val_frames=9, references=2),
        "faces": False,
        "workers": 1,
        "device": "cpu",
    }
    return BuildConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def general(tmp_path_factory):
    root = tmp_path_factory.mktemp("general")
    (root / "in").mkdir()
    for index in range(4):
        write_video(root / "in" / f"square{index}.mp4", moving_square(index))
    write_video(root / "in" / "small.mp4", moving_square(4, height=8, width=80))
    summary = build(general_config(root / "in", root / "out"), progress=False)
    return root, summary


def test_whole_frames_are_scaled_and_nothing_of_a_face_is_stored(general):
    root, summary = general
    assert summary.counts["accepted"] == 4 and summary.reasons == {"picture_too_small": 1}
    manifest = read_manifest(root / "out" / "train")
    assert not manifest.has_faces and manifest.crop == "none" and structure_of(manifest) is None
    assert manifest.structure_statistics is None and set(manifest.encoders) == {"video_vae", "reference"}
    assert set(manifest.features) == {"reference"}
    for sample in iter_samples(root / "out" / "train"):
        assert not {*OF_FACES, "truth", "flame"} & sample.tensors.keys()
        assert sample.tensors["video_latent"].shape == (3, 16, SIZE // 8, SIZE // 8)
        assert sample.meta.provenance["crop"] == [16.0, 0.0, 48.0] and sample.video is not None
    assert not check_dataset(root / "out").problems


def test_batches_have_no_structure_and_no_audio(general):
    reader = ShardReader(general[0] / "out" / "train", ReaderOptions(batch_size=2, seed=0, num_frames=3, loop=False))
    batch = next(iter(reader))
    assert batch.video.shape == (2, 3, 16, 2, 2) and batch.reference_tokens.shape[:1] == (2,)
    assert batch.structure.shape == (2, 3, 4, 0) and batch.audio.shape == (2, 3, 4, 0)
    assert not batch.mouth_mask.any() and batch.flame is None


def test_the_shipped_build_reads_with_the_settings_that_the_documents_give_it():
    given = ["video_vae=wan", "reference_encoder=dinov2-base", "text={prompt: A video.}", "workers=16", "device=cuda"]
    config = load_config(BuildConfig, Path(__file__).parents[4] / "configs" / "data" / "general.yaml", given)
    assert not config.faces and config.text is not None and config.text.prompt == "A video."
    captioned = load_config(BuildConfig, Path(__file__).parents[4] / "configs" / "data" / "panda70m.yaml", given[:2])
    assert not captioned.faces and captioned.text == config.text and captioned.sources[0].captions == "sidecar"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"flame": "deca"}, "flame"),
        ({"stages": {"crop": "yunet:1.5:0.0"}}, "stages.crop"),
        ({"stages": {"faces": {"min_face": 64}}}, "stages.faces"),
        ({"stages": {"quality": {"min_sound_db": -40.0}}}, "stages.quality"),
        ({"stages": {"quality": {"voice": {"enabled": False}, "noise": {"enabled": False}}}}, "stages.quality"),
    ],
)
def test_settings_of_faces_are_refused(tmp_path, changes, named):
    with pytest.raises(ValueError, match=f"faces=false builds general video, which has no {named}; leave"):
        general_config(tmp_path, tmp_path / "out", **changes)


def test_a_build_of_faces_is_not_gone_on_with(general):
    root, _ = general
    changed = general_config(root / "in", root / "out", keep_video=False)
    with pytest.raises(UserError, match="another configuration"):
        build(changed, progress=False)


def test_a_short_video_that_is_held_out_is_kept_whole_and_a_copy_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(3):
        write_video(tmp_path / "in" / f"{index}.mp4", moving_square(index, frames=18))
    (tmp_path / "in" / "copy.mp4").write_bytes((tmp_path / "in" / "0.mp4").read_bytes())
    changes = {"stages": StageConfig(size=SIZE, min_seconds=0.5), "clips": ClipConfig(frames=9, val_frames=129)}
    summary = build(general_config(tmp_path / "in", tmp_path / "out", **changes), progress=False)
    assert (summary.counts["rejected"], summary.reasons) == (1, {"duplicate": 1})
    (ended,) = Ledger(tmp_path / "out" / "ledger.jsonl").of_status("rejected")
    assert (ended.input, ended.detail) == ("general/copy.mp4", "the same file as general/0.mp4, byte for byte")
    assert [sample.meta.num_frames for sample in iter_samples(tmp_path / "out" / "val")] == [17]
    longer = {**changes, "clips": ClipConfig(frames=33, val_frames=129)}
    assert build(general_config(tmp_path / "in", tmp_path / "two", **longer), progress=False).reasons["too_short"] == 3
