"""SCRFD on ONNX files of the true output layout, written here byte by byte: decoding, letter box, colours, errors."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from df_models.encoders.face.face_detectors import load_face_detector
from df_models.encoders.face.scrfd import SCRFD, anchor_centres, fit_image
from df_models.encoders.face.yunet import box_iou
from df_models.errors import UserError
from df_models.files import sha256_file

pytest.importorskip("onnxruntime")
STRIDES = (8, 16, 32)
FLOAT, INT64 = 1, 7


def field(number: int, value: bytes | str | int) -> bytes:
    """One protobuf field: a varint, or bytes with their length (https://protobuf.dev/programming-guides/encoding)."""
    if isinstance(value, int):
        return varint(8 * number) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(8 * number + 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def tensor(name: str, array: np.ndarray) -> bytes:
    """onnx.proto's TensorProto."""
    dims = b"".join(field(1, n) for n in array.shape)
    kind = INT64 if array.dtype == np.int64 else FLOAT
    return dims + field(2, kind) + field(8, name) + field(9, array.tobytes())


def value_info(name: str, shape: list[int | str]) -> bytes:
    dims = b"".join(field(1, field(1, n) if isinstance(n, int) else field(2, n)) for n in shape)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, dims)))


def node(kind: str, inputs: list[str], output: str, **ints: list[int] | int) -> bytes:
    """NodeProto with attributes of one or several integers."""
    out = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)
    for name, value in ints.items():
        body = field(3, value) + field(20, 2) if isinstance(value, int) else b"".join(field(8, n) for n in value)
        out += field(5, field(1, name) + body + (b"" if isinstance(value, int) else field(20, 7)))
    return out


def model(path: Path, nodes: list[bytes], constants: dict[str, np.ndarray], given: list, outputs: list[str]) -> Path:
    graph = b"".join(field(1, made) for made in nodes) + field(2, "g")
    graph += b"".join(field(5, tensor(name, array)) for name, array in constants.items())
    graph += field(11, value_info("input.1", given))
    graph += b"".join(field(12, value_info(name, [f"n{name}", f"m{name}"])) for name in outputs)
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))
    return path


def constant_model(path: Path, outputs: list[np.ndarray], side: int = 64) -> Path:
    """A file that gives the same outputs for every image."""
    names = [f"{440 + index}" for index in range(len(outputs))]
    constants = {f"c{name}": array.astype(np.float32) for name, array in zip(names, outputs)}
    nodes = [node("Identity", [f"c{name}"], name) for name in names]
    return model(path, nodes, constants, [1, 3, side, side], names)


def red_model(path: Path, side: int | str) -> Path:
    """A file that sees a face in every cell of 8 px as red as the cell is, from 16 px before its corner to 24 after."""
    constants = {
        "shape": np.array([-1, 1]),
        "second": np.array([[[[0.9]]]], dtype=np.float32),
        "box": np.array([[2, 2, 3, 3]], dtype=np.float32),
        "points": np.arange(10, dtype=np.float32)[None] / 8,
        "no4": np.zeros((1, 4), dtype=np.float32),
        "no10": np.zeros((1, 10), dtype=np.float32),
    }
    nodes, names = [], {"score": [], "box": [], "points": []}
    for stride in STRIDES:
        weight = np.zeros((1, 3, stride, stride), dtype=np.float32)
        weight[0, 0] = (stride == 8) / stride**2
        constants[f"w{stride}"] = weight
        made = [f"{name}{stride}" for name in ("mean", "weaker", "both", "score", "none4", "box", "none10", "points")]
        mean, weaker, both, score, none4, box, none10, points = made
        nodes += [
            node("Conv", ["input.1", f"w{stride}"], mean, strides=[stride, stride]),
            node("Mul", [mean, "second"], weaker),
            node("Concat", [mean, weaker], both, axis=1),
            node("Transpose", [both], f"t{stride}", perm=[0, 2, 3, 1]),
            node("Reshape", [f"t{stride}", "shape"], score),
            node("Mul", [score, "no4"], none4),
            node("Add", [none4, "box"], box),
            node("Mul", [score, "no10"], none10),
            node("Add", [none10, "points"], points),
        ]
        for name, output in zip(names, (score, box, points)):
            names[name].append(output)
    return model(path, nodes, constants, ["1", 3, side, side], [*names["score"], *names["box"], *names["points"]])


def random_outputs(side: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = [2 * (side // stride) ** 2 for stride in STRIDES]
    return [
        *(rng.random((count, 1)) ** 3 for count in counts),
        *(rng.uniform(0.5, 3, (count, 4)) for count in counts),
        *(rng.uniform(-2, 2, (count, 10)) for count in counts),
    ]


def by_loops(outputs: list[np.ndarray], side: int, scale: float, threshold: float, overlap: float):
    """insightface's decoding and suppression, one anchor at a time."""
    found = []
    for level, stride in enumerate(STRIDES):
        cells = itertools.product(range(side // stride), range(side // stride), range(2))
        for index, (row, column, _) in enumerate(cells):
            score = float(np.float32(outputs[level][index, 0]))
            left, top, right, bottom = (float(np.float32(v)) * stride for v in outputs[3 + level][index])
            x, y = column * stride, row * stride
            box = np.array([x - left, y - top, x + right, y + bottom]) / scale
            offsets = outputs[6 + level][index].astype(np.float32)
            points = [
                ((x + offsets[2 * k] * stride) / scale, (y + offsets[2 * k + 1] * stride) / scale) for k in range(5)
            ]
            if score >= threshold:
                found.append((score, box, np.array(points)))
    kept: list = []
    for face in sorted(found, key=lambda face: -face[0]):
        if all(box_iou(face[1], other[1]) <= overlap for other in kept):
            kept.append(face)
    return kept


@pytest.mark.parametrize(("height", "width", "scale"), [(64, 64, 1.0), (128, 96, 0.5), (16, 32, 2.0)])
def test_outputs_are_decoded_as_insightface_does(tmp_path, height, width, scale):
    outputs = random_outputs(64, seed=height)
    detector = SCRFD(constant_model(tmp_path / "det.onnx", outputs))
    faces = detector.detect(np.zeros((height, width, 3), np.uint8))
    expected = by_loops(outputs, 64, scale, 0.5, 0.4)
    assert len(faces) == len(expected) > 5
    for face, (score, box, points) in zip(faces, expected):
        assert face.score == pytest.approx(score)
        np.testing.assert_allclose(face.box, box, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(face.points, points, rtol=1e-5, atol=1e-4)


def test_a_batch_dimension_is_taken_off(tmp_path):
    outputs = random_outputs(64, seed=1)
    flat = SCRFD(constant_model(tmp_path / "flat.onnx", outputs))
    deep = SCRFD(constant_model(tmp_path / "deep.onnx", [array[None] for array in outputs]))
    image = np.zeros((64, 64, 3), np.uint8)
    assert [face.score for face in flat.detect(image)] == [face.score for face in deep.detect(image)]


@pytest.mark.parametrize("side", [320, "?"])
def test_a_face_is_found_where_it_is_in_images_of_any_size(tmp_path, side):
    """The letter box keeps the sides' ratio, lies top left, and red is the first channel."""
    detector = SCRFD(red_model(tmp_path / "red.onnx", side), max_side=320)
    assert (detector.height, detector.width) == (320, 320)
    for height, width in ((320, 320), (640, 480), (120, 160), (1000, 250)):
        scale = 320 / max(height, width)
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 2] = 255
        y, x = (round(n / scale) for n in (160, 40))
        size = round(8 / scale)
        image[y : y + size, x : x + size] = (255, 0, 0)
        faces = detector.detect(image)
        assert len(faces) == 1, (height, width, faces)
        corner = np.array([40 - 16, 160 - 16, 40 + 24, 160 + 24])
        np.testing.assert_allclose(faces[0].box, corner / scale, atol=0.5 / scale)
        np.testing.assert_allclose(faces[0].points[2], np.array([44, 165]) / scale, atol=0.5 / scale)
        exact = pytest.approx(127.5 / 128, abs=1e-6)
        assert faces[0].score == exact if scale == 1 else faces[0].score > 0.75  # a resized edge is soft


def test_two_faces_come_best_first_and_dark_ones_not(tmp_path):
    detector = SCRFD(red_model(tmp_path / "red.onnx", 160))
    image = np.zeros((160, 160, 3), np.uint8)
    image[0:8, 0:8, 0], image[80:88, 80:88, 0], image[80:88, 0:8, 0] = 200, 255, 180
    faces = detector.detect(image)
    assert [face.box.tolist() for face in faces] == [[64, 64, 104, 104], [-16, -16, 24, 24]]
    assert detector.detect(np.zeros_like(image)) == []


def test_anchors_are_two_for_every_cell_row_by_row():
    assert anchor_centres(2, 3, 8).tolist() == [[x, y] for y in (0, 8) for x in (0, 0, 8, 8, 16, 16)]


def test_an_image_is_fitted_by_its_longer_side():
    image = np.arange(30 * 40 * 3, dtype=np.uint32).reshape(30, 40, 3).astype(np.uint8)
    assert fit_image(image, 64, 64).shape == (48, 64, 3)
    assert fit_image(image, 15, 64).shape == (15, 20, 3)
    assert np.array_equal(fit_image(image, 30, 100), image)


def test_a_detector_of_the_config_and_wrong_files(tmp_path):
    path = red_model(tmp_path / "det_10g.onnx", 64)
    detector = load_face_detector(f"scrfd:{path}")
    assert isinstance(detector, SCRFD) and detector.sha256 == sha256_file(path)
    assert detector.id == "scrfd" and "non-commercial" in detector.licence
    (tmp_path / "text.onnx").write_text("hello there")
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:500])
    outputs = random_outputs(64, seed=0)
    constant_model(tmp_path / "no_points.onnx", outputs[:6])
    constant_model(tmp_path / "one_anchor.onnx", [array[::2] for array in outputs])
    constant_model(tmp_path / "other.onnx", outputs[:2])
    constant_model(tmp_path / "odd.onnx", outputs, side=60)
    for name, what in (
        ("gone.onnx", "the face detector is missing: no file .*gone.onnx; take det_10g.onnx"),
        ("text.onnx", "text.onnx is no ONNX model"),
        ("cut.onnx", "cut.onnx is no ONNX model"),
        ("no_points.onnx", "without the five points"),
        ("one_anchor.onnx", "not a SCRFD with two anchors"),
        ("other.onnx", "not a SCRFD with two anchors"),
        ("odd.onnx", r"not a SCRFD: it reads \[1, 3, 60, 60\]"),
    ):
        with pytest.raises(UserError, match=what) as refused:
            load_face_detector(f"scrfd:{tmp_path / name}")
        assert "\n" not in str(refused.value)
