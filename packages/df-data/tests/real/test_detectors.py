"""RetinaFace beside YuNet on real faces, and its decoding on cases known by arithmetic."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from df_models.encoders.face.face_detectors import load_face_detector
from df_models.encoders.face.retinaface import RetinaFace, RetinaFaceNet, decode_faces, make_priors
from df_models.encoders.face.yunet import YuNet, box_iou
from df_models.errors import UserError
from df_models.media import read_image

CHECKPOINT = "retinaface_mobilenet0.25_Final.pth"


@pytest.fixture(scope="module")
def retinaface(real_weights: Path) -> RetinaFace:
    return RetinaFace(real_weights / CHECKPOINT)


def images(real_data: Path) -> list[np.ndarray]:
    found = [read_image(path) for path in sorted((real_data / "faces").glob("*.jpg"))]
    for path in sorted((real_data / "grid/others").glob("*.mpg")):
        with av.open(str(path)) as container:
            found.append([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][30])
    return found


def test_both_detectors_see_the_same_faces(real_data: Path, detector: YuNet, retinaface: RetinaFace) -> None:
    for image in images(real_data):
        ours, theirs = retinaface.detect(image), detector.detect(image)
        assert len(ours) == len(theirs) == 1
        assert box_iou(ours[0].box, theirs[0].box) > 0.85
        assert np.abs(ours[0].points - theirs[0].points).max() < 0.1 * theirs[0].size  # same five, same order
        assert ours[0].score > 0.95


def test_two_people_are_two_and_an_empty_image_none(real_data: Path, retinaface: RetinaFace) -> None:
    assert len(retinaface.detect(read_image(real_data / "odd/two_people.jpg"))) == 2
    assert retinaface.detect(np.full((200, 300, 3), 128, np.uint8)) == []


def test_a_shrunk_image_gives_boxes_of_the_large_one(real_data: Path, real_weights: Path) -> None:
    image = read_image(real_data / "faces/facerec_obama.jpg")
    fine, coarse = (RetinaFace(real_weights / CHECKPOINT, max_side=side).detect(image) for side in (640, 320))
    assert box_iou(fine[0].box, coarse[0].box) > 0.85


def test_priors_are_two_for_every_cell() -> None:
    priors = make_priors(50, 70)
    assert len(priors) == 2 * (7 * 9 + 4 * 5 + 2 * 3)
    assert priors[:4].tolist() == [[4, 4, 16], [4, 4, 32], [12, 4, 16], [12, 4, 32]]
    assert priors[-1].tolist() == [80, 48, 512]


def test_the_network_gives_one_row_for_every_prior() -> None:
    with torch.inference_mode():
        score, boxes, points = RetinaFaceNet().eval()(torch.zeros(1, 3, 50, 70))
    assert score.shape == (1, len(make_priors(50, 70))) and boxes.shape[2] == 4 and points.shape[2] == 10
    assert float(score.min()) >= 0 and float(score.max()) <= 1


def test_offsets_become_boxes_and_points() -> None:
    boxes, points = decode_faces(
        np.array([[100.0, 50.0, 32.0]]), np.array([[1.0, -1.0, 0.0, 5 * np.log(2)]]), np.arange(10.0)[None]
    )
    assert boxes[0].tolist() == pytest.approx([103.2 - 16, 46.8 - 32, 103.2 + 16, 46.8 + 32])
    assert points[0, 0].tolist() == [100, 53.2] and points[0, 4].tolist() == pytest.approx([125.6, 78.8])


def test_a_detector_is_named_in_the_config(real_weights: Path, tmp_path: Path) -> None:
    yunet = real_weights / "yunet_n_dynamic.onnx"
    assert isinstance(load_face_detector(str(yunet)), YuNet)
    assert isinstance(load_face_detector(f"yunet:{yunet}"), YuNet)
    assert isinstance(load_face_detector(f"retinaface:{real_weights / CHECKPOINT}"), RetinaFace)
    with pytest.raises(UserError, match="known are retinaface, scrfd, yunet"):
        load_face_detector("mtcnn:x.onnx")
    (tmp_path / "junk.onnx").write_text("hello")
    with pytest.raises(UserError, match=r"junk\.onnx is no ONNX model that can be read"):
        load_face_detector(str(tmp_path / "junk.onnx"))
    with pytest.raises(UserError, match="no file"):
        load_face_detector(f"retinaface:{tmp_path}/gone.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not retinaface's checkpoint"):
        load_face_detector(f"retinaface:{tmp_path}/other.pth")
