"""The face quality network: what it is given, where it looks, and files that are another network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_real_reader import SIZE, Landmarker, landmarks_of

from df_eval.config import ReadersConfig
from df_eval.measure import STATIC, Truth, Video, measure
from df_eval.metrics import metric_class
from df_eval.metrics.seen import Seen
from df_eval.reading import real
from df_eval.reading.quality import FaceQuality
from df_eval.reading.readings import FaceReadings
from df_eval.reading.real import RealFaceReader
from df_models.errors import UserError
from df_models.settings import Location

WEIGHTS = np.random.default_rng(3).normal(size=(3, 1)).astype(np.float32)


def network(path: Path, outputs: int = 1, size: int = 112) -> Path:
    """An ONNX file of eDifFIQA's layout, random weights: the score is a weighted mean of the three colours."""
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    graph = make.make_graph(
        [
            make.make_node("GlobalAveragePool", ["face"], ["mean"]),
            make.make_node("Flatten", ["mean"], ["flat"]),
            make.make_node("MatMul", ["flat", "weights"], ["score"]),
        ],
        "quality",
        [make.make_tensor_value_info("face", onnx.TensorProto.FLOAT, [1, 3, size, size])],
        [make.make_tensor_value_info("score", onnx.TensorProto.FLOAT, [1, outputs])],
        [onnx.numpy_helper.from_array(np.tile(WEIGHTS, (1, outputs)), "weights")],
    )
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def coloured(colours: list[tuple[int, int, int]]) -> np.ndarray:
    return np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (len(colours), SIZE, SIZE, 3)).copy()


def test_it_sees_red_green_blue_in_minus_one_to_one_and_only_faces(tmp_path: Path) -> None:
    frames = coloured([(255, 0, 0), (0, 0, 255), (0, 0, 0), (10, 200, 90)])  # the black one shows no face
    found = FaceQuality(network(tmp_path / "q.onnx")).scores(frames, landmarks_of(frames))
    wanted = (frames[:, 0, 0] / 127.5 - 1) @ WEIGHTS[:, 0]
    assert np.isnan(found[2]) and np.delete(found, 2) == pytest.approx(np.delete(wanted, 2), rel=1e-4)
    assert np.isnan(FaceQuality(tmp_path / "q.onnx").scores(frames[2:3], landmarks_of(frames[2:3]))).all()


def test_the_reader_gives_it_where_its_file_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_landmarker", lambda _: Landmarker())
    none = RealFaceReader(ReadersConfig(), "liveportrait", None)
    assert "readers.quality=PATH" in none.unavailable["face_quality"]
    files = ReadersConfig(quality=Location(network(tmp_path / "q.onnx")))
    reader = RealFaceReader(files, "liveportrait", None)
    assert "face_quality" not in reader.unavailable and "ediffiqa" in reader.id
    frames = coloured([(255, 0, 0), (0, 0, 255), (0, 0, 0)])
    read = reader.read(frames)
    assert read is not None and read.quality_T is not None
    metric = metric_class("face_quality")()
    truth = Truth(frames, FaceReadings(np.ones(3, bool)), None)
    metric.update([Seen(Video(frames, read), truth)], [0])
    assert float(metric.compute()) == pytest.approx(read.quality_T[:2].mean())
    still = Video(frames, read.first(1).repeated(3))
    pair = measure(STATIC, still, truth, max_lag=5, shifts=(25,)).pairs["face_quality"]
    assert pair.value == pytest.approx(read.quality_T[0])


def test_files_that_are_missing_or_other_networks_are_refused(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "gone.onnx", "the face quality network is missing: no file"),
        (network(tmp_path / "identity.onnx", outputs=5), "gives 5 numbers for a face, not one"),
        (network(tmp_path / "large.onnx", size=224), r"reads \[1, 3, 224, 224\]"),
    ):
        with pytest.raises(UserError, match=message):
            FaceQuality(path)
