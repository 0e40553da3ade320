"""Which face detector a config means."""

from __future__ import annotations

from df_models.encoders.face.retinaface import RetinaFace
from df_models.encoders.face.scrfd import SCRFD
from df_models.encoders.face.yunet import YuNet
from df_models.errors import UserError
from df_models.paths import expand_path, expand_variables

LoadedFaceDetector = YuNet | RetinaFace | SCRFD
FACE_DETECTORS: dict[str, type[LoadedFaceDetector]] = {made.id: made for made in (YuNet, RetinaFace, SCRFD)}


def load_face_detector(spec: str) -> LoadedFaceDetector:
    """Return the detector named by ``NAME:PATH``; a path alone is YuNet's.

    Raises:
        UserError: the name is unknown or the file is missing or not that detector's.
    """
    name, colon, path = expand_variables(spec).partition(":")
    if not colon or "/" in name or "\\" in name or len(name) == 1:  # a path, perhaps with a drive's letter
        return YuNet(expand_path(spec))
    if name not in FACE_DETECTORS:
        raise UserError(f"unknown face detector {name!r}; known are {', '.join(sorted(FACE_DETECTORS))} (NAME:PATH)")
    return FACE_DETECTORS[name](expand_path(path))
