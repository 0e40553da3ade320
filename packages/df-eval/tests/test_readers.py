"""What is decoded from structure streams, and which reader belongs to which dataset."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from df_data.stages import identity
from df_data.stages.readings import KEYPOINTS
from df_data.synth.clip import IDENTITIES, make_clip
from df_eval.clips import render_clips
from df_eval.config import ReadersConfig
from df_eval.reading.reader_files import absent_landmarker, reader_files, unused_readers
from df_eval.reading.readers import SyntheticFaceReader, choose_reader, lips_of, mediapipe_lips, synthetic_lips
from df_eval.reading.readings import signals_of
from df_eval.reading.real import RealFaceReader
from df_models.errors import UserError
from df_models.settings import Location
from df_models.structure import LIVEPORTRAIT_70


def test_the_true_structure_decodes_to_the_true_lips() -> None:
    clip = make_clip(3, 11, 41, 32)
    opening, width = synthetic_lips(clip.structure)
    assert opening.shape == (41,) and width is not None
    assert np.corrcoef(opening, clip.truth["mouth_open"])[0, 1] > 0.999
    assert np.corrcoef(width, clip.truth["lip_width"])[0, 1] > 0.99
    assert abs(np.corrcoef(width, opening)[0, 1]) < 0.9, "they are two things"


def test_mediapipe_structure_decodes_to_the_gap_and_the_corners_of_its_lip_keypoints() -> None:
    opening, width = np.linspace(0, 0.1, 20), np.linspace(0.05, -0.05, 20)
    expression = np.random.default_rng(0).normal(size=(20, 21, 3)) * 0.01
    lower, upper = list(KEYPOINTS).index("lower_lip_inner"), list(KEYPOINTS).index("upper_lip_inner")
    expression[:, lower, 1] = expression[:, upper, 1] + opening
    left, right = list(KEYPOINTS).index("mouth_left"), list(KEYPOINTS).index("mouth_right")
    expression[:, left, 0], expression[:, right, 0] = -width / 2, width / 2
    structure = np.zeros((20, 70))
    structure[:, LIVEPORTRAIT_70.slice("expression")] = expression.reshape(20, -1)
    for lips in (mediapipe_lips(structure), lips_of(expression, list(KEYPOINTS))):
        np.testing.assert_allclose(lips.opening_T, opening, atol=1e-12)
        np.testing.assert_allclose(lips.width_T, width, atol=1e-12)
        assert [len(part) for part in lips.first(5)] == [5, 5]


def test_mediapipe_structure_is_freed_of_the_pose() -> None:
    """A wide open mouth on a tilted head: its keypoints part in both of the camera's axes."""
    opening = np.linspace(0, 0.1, 20)
    expression = np.zeros((20, 21, 3))
    expression[:, list(KEYPOINTS).index("lower_lip_inner"), 1] = opening
    pose = np.radians(np.array([0.0, 20.0, 60.0]))
    turned = expression @ Rotation.from_euler("xyz", pose).as_matrix().T
    structure = np.zeros((20, 70))
    structure[:, LIVEPORTRAIT_70.slice("expression")] = turned.reshape(20, -1)
    structure[:, LIVEPORTRAIT_70.slice("yaw")], structure[:, LIVEPORTRAIT_70.slice("roll")] = 20.0, 60.0
    np.testing.assert_allclose(mediapipe_lips(structure).opening_T, opening, atol=1e-6)


def test_readers_are_chosen_by_the_pixels_and_say_which_file_would_give_what_is_missing(tmp_path: Path) -> None:
    synthetic = choose_reader("synthetic", ReadersConfig())
    assert isinstance(synthetic, SyntheticFaceReader) and {"lmd", "sync_c"} == set(synthetic.unavailable) & {
        "lmd", "sync_c", "csim", "lip_sync"
    }  # fmt: skip
    for encoder in ("liveportrait", "mediapipe"):
        reader = choose_reader(encoder, ReadersConfig())
        assert isinstance(reader, RealFaceReader) and reader.read(np.zeros((2, 8, 8, 3), np.uint8)) is None
        for name in ("lip_sync", "csim", "sync_c", "lmd", "apd"):
            assert "readers.landmarker=PATH" in reader.unavailable[name]
        assert "flicker" not in reader.unavailable
        assert ("liveportrait" in reader.unavailable.get("structure_lip_sync", "")) == (encoder == "liveportrait")
    with pytest.raises(UserError, match=r"gone\.task"):
        choose_reader("mediapipe", ReadersConfig(landmarker=Location(tmp_path / "gone.task")))
    with pytest.raises(UserError, match=r"gone\.onnx.*ArcFace"):
        choose_reader("liveportrait", ReadersConfig(identity=Location(tmp_path / "gone.onnx")))
    with pytest.raises(UserError, match="'facenet' is none of mobilefacenet, arcface"):
        choose_reader("liveportrait", ReadersConfig(identity=Location("facenet:x.onnx")))


def test_a_dataset_s_landmarker_that_is_not_there_is_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"models: {{face_landmarker: '${{DF_NO_SUCH:-{tmp_path}}}/gone.task'}}\n")
    assert reader_files(ReadersConfig(), tmp_path).landmarker is None
    why = absent_landmarker(tmp_path)
    assert why == f"the dataset's landmarker {tmp_path}/gone.task is not there; give readers.landmarker=PATH"
    reader = choose_reader("mediapipe", ReadersConfig(), no_landmarker=why)
    assert reader.unavailable["lip_sync"] == why and why in reader.truth_note
    (tmp_path / "gone.task").write_bytes(b"")
    assert absent_landmarker(tmp_path) == "" and reader_files(ReadersConfig(), tmp_path).landmarker is not None
    assert absent_landmarker(None) == ""


def test_files_that_the_synthetic_reader_does_not_use_are_told_and_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "face.onnx").write_bytes(b"")
    files = ReadersConfig.model_validate(
        {"identity": f"mobilefacenet:{tmp_path / 'face.onnx'}", "i3d": str(tmp_path / "face.onnx")}
    )
    (line,) = unused_readers(files, "synthetic")
    assert line.startswith("readers.identity: not used") and unused_readers(files, "mediapipe") == []
    assert unused_readers(ReadersConfig(), "synthetic") == []
    with pytest.raises(UserError, match=r"readers\.vad=.*gone\.onnx: there is nothing"):
        unused_readers(ReadersConfig(vad=Location(tmp_path / "gone.onnx")), "synthetic")


def test_a_recognition_network_of_another_kind_is_told_by_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    def network(path: Path, kind: object) -> SimpleNamespace:
        return SimpleNamespace(width=int(Path(path).stem), id="net", sha256="f" * 64)

    monkeypatch.setattr(identity, "FaceIdentity", network)
    for given, message in (
        ("128.onnx", r"gives 128 numbers.*arcface give 512.*readers\.identity=mobilefacenet:128\.onnx"),
        ("mobilefacenet:512.onnx", r"mobilefacenet give 128.*readers\.identity=arcface:512\.onnx"),
        ("arcface:7.onnx", "the kinds are mobilefacenet, arcface"),
    ):
        with pytest.raises(UserError, match=message):
            choose_reader("liveportrait", ReadersConfig.model_validate({"identity": given}))
    for given in ("512.onnx", "arcface:512.onnx", "mobilefacenet:128.onnx"):
        choose_reader("liveportrait", ReadersConfig.model_validate({"identity": given}))


def test_signals_take_what_is_named_and_nothing_else() -> None:
    truth = {"mouth_open": np.arange(5.0), "yaw": np.ones(5), "pitch": np.zeros(5)}
    signals = signals_of(truth)
    assert signals.mouth_open_T is truth["mouth_open"]
    assert signals.angles_TA is None and signals.blink_T is None
    full = signals_of(truth | {"roll": np.full(5, 2.0)}).angles_TA
    assert full is not None and full[0].tolist() == [1.0, 0.0, 2.0]


def test_rendered_clips_are_held_out_and_all_different() -> None:
    clips = render_clips(2, 17, 32, seed=0)
    people = [int(clip.identity.removeprefix("synth-")) for clip in clips]
    assert len(set(people)) == 2 and all(person in IDENTITIES["val"] for person in people)
    assert [clip.length for clip in clips] == [17, 17]
    assert (clips[0].wave_N != clips[1].wave_N).any()
    again = render_clips(1, 17, 32, seed=0)[0]
    assert {clip.identity for clip in render_clips(2, 1, 32, seed=0, person=1_900_000)} == {"synth-1900000"}
    np.testing.assert_array_equal(again.frames_THWC, clips[0].frames_THWC)
    assert (render_clips(1, 17, 32, seed=1)[0].wave_N != clips[0].wave_N).any()
