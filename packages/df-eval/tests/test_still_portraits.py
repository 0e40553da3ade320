"""Three still portraits as references: cropped as clips are, of whatever kind of file, and taken in by the encoders.

Stands here because it compares what df-infer crops with what df-data prepares.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from df_data.stages.decode import decode_clip
from df_data.stages.faces import FaceFilter, detect_faces, track_face
from df_data.stages.identity import SAME_PERSON, FaceIdentity, upright_face
from df_infer.portrait import portrait_from
from df_models.crop import CropRule, crop_resize
from df_models.encoders import load_reference_encoder, load_video_vae
from df_models.encoders.face.face_detectors import LoadedFaceDetector, load_face_detector
from df_models.errors import UserError
from df_models.media import read_image

STILLS = ("facerec_biden.jpg", "facerec_obama.jpg", "liveportrait_s9.jpg")
SIZE = 256
RULES = ("yunet:1.3:-0.03", "retinaface:1.3:-0.03")
FILES = {"yunet": "yunet_n_dynamic.onnx", "retinaface": "retinaface_mobilenet0.25_Final.pth"}


def _folder(variable: str, fallback: str) -> Path:
    folder = Path(os.environ.get(variable) or fallback).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real test data: set {variable} (no folder {folder})")
    return folder


@pytest.fixture(scope="module")
def real_data() -> Path:
    return _folder("DF_TEST_DATA", "../shared/data")


@pytest.fixture(scope="module")
def real_weights() -> Path:
    return _folder("DF_TEST_WEIGHTS", "../shared/weights")


@pytest.fixture(scope="module")
def network(real_weights: Path) -> FaceIdentity:
    pytest.importorskip("onnxruntime")
    return FaceIdentity(real_weights / "mobilefacenet_foamliu.onnx")


@pytest.fixture(scope="module", params=RULES)
def rule(request: pytest.FixtureRequest) -> CropRule:
    return CropRule.parse(request.param)


@pytest.fixture(scope="module")
def detector(real_weights: Path, rule: CropRule) -> LoadedFaceDetector:
    return load_face_detector(f"{rule.detector}:{real_weights / FILES[rule.detector]}")


@pytest.fixture(scope="module")
def portrait(real_weights: Path, rule: CropRule) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: portrait_from(image, SIZE, str(rule), real_weights / FILES[rule.detector])


def place_of(detector: LoadedFaceDetector, crop_SSC: np.ndarray) -> np.ndarray:
    """Size of the face and middle of its box (x, y), as shares of the crop."""
    (face,) = detector.detect(crop_SSC)
    return np.array([face.size, *(face.box[:2] + face.box[2:]) / 2]) / SIZE


def vector_of(detector: LoadedFaceDetector, network: FaceIdentity, image_HWC: np.ndarray) -> np.ndarray:
    (face,) = detector.detect(image_HWC)
    return network.embed(upright_face(image_HWC, face.points))


def clip_crop(path: Path, detector: LoadedFaceDetector, rule: CropRule) -> np.ndarray:
    """The middle frame of a clip in the crop that a build gives it."""
    frames = decode_clip(path).frames
    faces = detect_faces(frames, detector, 9)
    track = track_face(faces, frames.shape[:3], FaceFilter(min_face=64, detect_every=9), rule)
    return crop_resize(frames[len(frames) // 2], track.crop, SIZE)


def test_a_portrait_is_cropped_as_clips_are(
    real_data: Path, detector: LoadedFaceDetector, rule: CropRule, portrait: Callable[[np.ndarray], np.ndarray]
) -> None:
    """The face lies where, and is as large as, the rule says, of clips and of stills (measured: within 0.04)."""
    clips = [*sorted((real_data / "grid/others").glob("*.mpg"))[:3], real_data / "grid/s1/bbaf2n.mpg"]
    crops = [clip_crop(path, detector, rule) for path in clips]
    crops += [portrait(read_image(real_data / "faces" / name)) for name in STILLS]
    said = [1 / rule.scale, 0.5, 0.5 - rule.vertical_offset]
    for crop in crops:
        assert place_of(detector, crop) == pytest.approx(said, abs=0.05)


def test_a_still_of_a_clip_gives_the_clips_crop(
    real_data: Path, detector: LoadedFaceDetector, rule: CropRule, portrait: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = real_data / "grid/s1/bbaf2n.mpg"
    frame = decode_clip(path).frames[37]
    difference = np.abs(portrait(frame).astype(int) - clip_crop(path, detector, rule))
    assert difference.mean() < 6  # the clip's square is the median of its boxes, the still's is of one


def test_it_is_still_the_same_person(
    real_data: Path, detector: LoadedFaceDetector, network: FaceIdentity, portrait: Callable[[np.ndarray], np.ndarray]
) -> None:
    images = [read_image(real_data / "faces" / name) for name in STILLS]
    whole = np.stack([vector_of(detector, network, photo) for photo in images])
    crops = np.stack([vector_of(detector, network, portrait(photo)) for photo in images])
    cosines = whole @ crops.T
    assert np.diag(cosines).mean() > 0.9 and np.diag(cosines).min() > SAME_PERSON  # measured: mean 0.93, least 0.87
    assert (cosines - 2 * np.eye(3)).max() < 0.3  # the painting, too, is like itself alone; measured: 0.11


@pytest.mark.parametrize("kind", ["CMYK.jpg", "L.png", "turned.jpg", "RGBA.png", "16.png"])
def test_every_kind_of_file_gives_the_same_portrait(
    real_data: Path, real_weights: Path, tmp_path: Path, kind: str
) -> None:
    from PIL import Image

    def cut(image_HWC: np.ndarray) -> np.ndarray:
        return portrait_from(image_HWC, SIZE, RULES[0], real_weights / FILES["yunet"]).astype(int)

    photo = read_image(real_data / "faces" / STILLS[1])
    image, exif = Image.fromarray(photo), Image.Exif()
    grey = np.asarray(image.convert("L"))
    wanted = np.repeat(grey[..., None], 3, axis=2) if kind in ("L.png", "16.png") else photo
    if kind == "turned.jpg":
        exif[0x0112] = 6
        image = image.transpose(Image.Transpose.ROTATE_90)
    elif kind == "16.png":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = image.convert(kind.partition(".")[0])
    image.save(tmp_path / kind, exif=exif, quality=95)
    assert np.abs(cut(read_image(tmp_path / kind)) - cut(wanted)).mean() < 3


def test_two_people_are_an_error_of_one_line(real_data: Path, portrait: Callable[[np.ndarray], np.ndarray]) -> None:
    photo = read_image(real_data / "odd/two_people.jpg")
    with pytest.raises(UserError, match=r"^the portrait shows 2 faces of like size \(\d+, \d+ px\); cut it [^\n]*$"):
        portrait(photo)
    for half in (photo[:, : photo.shape[1] // 2], photo[:, photo.shape[1] // 2 :]):
        assert portrait(half).shape == (SIZE, SIZE, 3)


def test_the_embedded_encoders_take_them_in(real_data: Path, real_weights: Path) -> None:
    """Reference latents and tokens of the three are finite, told apart, and decode to the portrait again."""
    torch.set_num_threads(1)
    crops = [
        portrait_from(read_image(real_data / "faces" / name), 64, RULES[0], real_weights / FILES["yunet"])
        for name in STILLS
    ]
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    vae, patches = load_video_vae("df-tiny"), load_reference_encoder("patches")
    with torch.inference_mode():
        latents = vae.encode_image(images)
        tokens = patches.encode(images, latents)
        back = vae.decode(latents[:, None])[:, 0]
    assert latents.shape == (3, 16, 8, 8) and tokens.shape == (3, patches.num_tokens, patches.dim)
    assert torch.isfinite(latents).all() and torch.isfinite(tokens).all() and latents.abs().max() < 30
    errors = (back[:, None] - images[None]).square().mean(dim=(2, 3, 4))
    assert errors.argmin(dim=1).tolist() == [0, 1, 2]
    assert (-10 * torch.log10(errors.diagonal())).min() > 18  # measured: 22.5 dB or more; the VAE has seen no real face
