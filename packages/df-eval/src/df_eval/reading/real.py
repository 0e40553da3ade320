"""The reader of real faces, put together from the networks whose files are given.

Shape suffixes: T pixel frames, S side of the square frame, D features of a network, N samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from df_data.stages.landmarks import Landmarks
from df_data.stages.readings import OUTER_LIPS, readings_of
from df_eval.clips import EvalClip
from df_eval.config import ReadersConfig
from df_eval.metrics import CATALOG, SETS
from df_eval.metrics.seen import OF_STRUCTURE
from df_eval.reading.face_crops import FlameReader, GazeReader
from df_eval.reading.face_points import face_signals
from df_eval.reading.quality import FaceQuality
from df_eval.reading.readings import FaceReadings, Lips, masked, signals_of
from df_eval.reading.speech import sound_signals
from df_eval.reading.theval_points import theval_measures
from df_models.encoders.weights import split_spec
from df_models.errors import UserError
from df_models.paths import expand_path
from df_models.time import samples_for

if TYPE_CHECKING:
    from df_data.stages.identity import FaceIdentity, UprightFaceNetwork
    from df_data.stages.landmarker import MediaPipeReader
    from df_data.stages.voice import SileroVAD
    from df_models.encoders.face.syncnet import SyncNet

INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
LIPS = (*OUTER_LIPS, *INNER_LIPS)
"""Contours of the lips among MediaPipe's landmarks, as its own connections have them."""
EYES = ((33, 133), (263, 362))
"""Corners of either eye; an eye's middle is between its corners."""
LONGEST_GAP = 24
"""Frames without a face across which SyncNet's crop goes on, as in its original (``num_failed_det``)."""
GIVEN_BY = {
    **dict.fromkeys(
        ("presence", "mouth", "lip_width", "blink", "angles", "lips", "brow", "gaze", "expression"), "landmarker"
    ),
    "theval": "landmarker",
    "identity": "identity",
    "quality": "quality",
    "flame": "deca",
    "look": "gaze",
    "seen": "syncnet",
    "speech": "vad",
}
"""Signals of a metric's ``needs``, and the file that gives each."""


class RealFaceReader:
    """Reads real faces with what is given: MediaPipe's landmarker, an identity and a quality network, SyncNet, DECA,
    L2CS-Net, and Silero VAD for where their sound is speech.

    The networks that see look where the landmarker finds the face, so they need it too.

    Args:
        files: paths of the networks.
        encoder: id of what made the dataset's structure.
        structure_lips: decodes what it says of the lips; None: it cannot be.
        stored_by: SHA-256 of the landmarker whose readings the dataset stores, if any.
        no_landmarker: why there is none, if more is known than that none is given.
    """

    def __init__(
        self,
        files: ReadersConfig,
        encoder: str,
        structure_lips: Callable[[np.ndarray], Lips] | None,
        stored_by: str = "",
        no_landmarker: str = "",
    ) -> None:
        self._decode = structure_lips
        self._no_landmarker = no_landmarker or "no face landmarker is given (readers.landmarker=PATH)"
        self._landmarker = _landmarker(files)
        self._identity = _identity(files)
        self._quality = _quality(files)
        self._syncnet = _syncnet(files)
        self._deca = None if files.deca is None else FlameReader(str(files.deca))
        self._gaze = None if files.gaze is None else GazeReader(str(files.gaze))
        self._vad = _vad(files)
        named = (self._landmarker, self._identity, self._quality, self._syncnet, self._deca, self._gaze, self._vad)
        self.id = " + ".join(_name(network) for network in named if network is not None) or "none"
        self._stored = self._landmarker is not None and self._landmarker.sha256 == stored_by
        self.truth_note = self._what_truth_is()
        self.unavailable = _unavailable(self._lacking())
        if structure_lips is None:
            reason = f"the mouth cannot be decoded from structure of '{encoder}'"
            self.unavailable |= {spec.name: reason for spec in CATALOG if OF_STRUCTURE.keys() & spec.needs}

    def read(self, frames_THWC: np.ndarray) -> FaceReadings | None:
        if self._landmarker is None:
            return None
        landmarks = self._landmarker.landmarks(frames_THWC)
        return self._of(frames_THWC, landmarks, self._crops(frames_THWC, landmarks))

    def _crops(self, frames_THWC: np.ndarray, landmarks: Landmarks) -> dict[str, np.ndarray]:
        """What is seen in the face of each frame, of the truth's as well, by the names of :class:`FaceReadings`."""
        found: dict[str, np.ndarray] = {}
        if self._deca is not None:
            found["flame_TD"] = self._deca.vectors(frames_THWC, landmarks)
        if self._gaze is not None:
            found["look_T2"] = self._gaze.angles(frames_THWC, landmarks)
        return found

    def _of(self, frames_THWC: np.ndarray, landmarks: Landmarks, crops: Mapping[str, np.ndarray]) -> FaceReadings:
        return FaceReadings(
            **read_landmarks(landmarks),
            **crops,
            identity_TD=None if self._identity is None else _vectors(self._identity, frames_THWC, landmarks),
            quality_T=None if self._quality is None else self._quality.scores(frames_THWC, landmarks),
            seen_TD=None if self._syncnet is None else _seen(self._syncnet, frames_THWC, landmarks),
        )

    @property
    def hears(self) -> bool:
        """Whether SyncNet is there, and the landmarker that tells it where to look."""
        return self._landmarker is not None and self._syncnet is not None

    def hear(self, wave_N: np.ndarray, frames: int) -> np.ndarray:
        """SyncNet's vectors of a sound, a window for each pixel frame: [T, D].

        Raises:
            ValueError: there is no SyncNet (:attr:`hears`).
        """
        if self._syncnet is None:
            raise ValueError("this reader has no SyncNet")
        return _heard(self._syncnet, wave_N, frames)

    def truth(self, clip: EvalClip) -> FaceReadings:
        """What the networks read of the whole true clip; mouth, lids and pose as stored where the landmarker's are."""
        if self._landmarker is None:
            return signals_of(clip.truth)
        frames_THWC = clip.frames_THWC
        landmarks = self._landmarker.landmarks(frames_THWC)
        return self._signals(clip, landmarks, self._crops(frames_THWC, landmarks))

    def read_true(self, clip: EvalClip, frames: int) -> tuple[FaceReadings | None, FaceReadings]:
        """:meth:`read` of the first frames of a clip and its :meth:`truth`; what both need looks at them once."""
        if self._landmarker is None:
            return None, signals_of(clip.truth)
        whole_THWC = clip.frames_THWC
        landmarks = self._landmarker.landmarks(whole_THWC)
        crops = self._crops(whole_THWC, landmarks)
        first = {name: values[:frames] for name, values in crops.items()}
        return self._of(whole_THWC[:frames], landmarks.first(frames), first), self._signals(clip, landmarks, crops)

    def _signals(self, clip: EvalClip, landmarks: Landmarks, crops: Mapping[str, np.ndarray]) -> FaceReadings:
        stored = signals_of(clip.truth)
        heard = None if self._syncnet is None else self.hear(clip.wave_N, clip.count)
        sound = {} if self._vad is None else sound_signals(self._vad, clip.wave_N, clip.count)
        read = FaceReadings(**read_landmarks(landmarks), **crops, heard_TD=heard, **sound)
        return read.but(stored) if self._stored else read

    def structure_lips(self, structure_TD: np.ndarray) -> Lips | None:
        return None if self._decode is None else self._decode(structure_TD)

    def _what_truth_is(self) -> str:
        if self._landmarker is None:
            return f"not read: {self._no_landmarker}"
        if self._stored:
            return (
                "mouth, lids and pose as this landmarker read them from the original video when the dataset was built; "
                "the rest is read from the dataset's true pixels"
            )
        return "what this reader reads from the dataset's true pixels (it stores no readings of this landmarker)"

    def _lacking(self) -> dict[str, str]:
        """What has no file, with the setting that would give it."""
        given = {
            "landmarker": self._landmarker,
            "identity": self._identity,
            "quality": self._quality,
            "syncnet": self._syncnet,
            "deca": self._deca,
            "gaze": self._gaze,
            "vad": self._vad,
        }
        lacking = [name for name, network in given.items() if network is None]
        if self._landmarker is None:
            return dict.fromkeys(given, self._no_landmarker)
        return {name: f"no file is given for it (readers.{name}=PATH)" for name in lacking}


def read_landmarks(landmarks: Landmarks) -> dict[str, np.ndarray]:
    """Mouth, lids, pose, brows, gaze, expression, the lips' and eyes' places, and what THEval measures, by the names of
    :class:`FaceReadings`."""
    found, present = readings_of(landmarks), landmarks.detected.astype(bool)
    points_TL2 = landmarks.points[..., :2]
    left, right = (points_TL2[:, list(corners)].mean(axis=1) for corners in EYES)
    return {
        "presence_T": present,
        "mouth_open_T": masked(found.mouth_open, present),
        "lip_width_T": masked(found.lip_width, present),
        "blink_T": masked(found.blink, present),
        "angles_TA": masked(np.stack([found.yaw, found.pitch, found.roll], axis=1), present),
        "lips_TK2": masked(points_TL2[:, list(LIPS)], present),
        "eyes_T": masked(np.linalg.norm(left - right, axis=-1), present),
        "theval_TM": masked(theval_measures(points_TL2), present),
        **face_signals(landmarks),
    }


def face_boxes(landmarks: Landmarks, size: int) -> np.ndarray | None:
    """The box of all landmarks in every frame, pixels [T, 4]; None without a face for longer than `LONGEST_GAP`."""
    seen = np.flatnonzero(landmarks.detected)
    edges = np.concatenate([[-1], seen, [len(landmarks.detected)]])
    if not len(seen) or np.diff(edges).max() > LONGEST_GAP + 1:
        return None
    points = (landmarks.points[seen, :, :2] + 1) * size / 2
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    times = np.arange(len(landmarks.detected))
    return np.stack([np.interp(times, seen, column) for column in boxes.T], axis=1)


def _vectors(network: FaceIdentity, frames_TSSC: np.ndarray, landmarks: Landmarks) -> np.ndarray:
    """Identity vectors of every frame, NaN where no face was found."""
    vectors_TD = np.full((len(frames_TSSC), network.width), np.nan)
    seen = np.flatnonzero(landmarks.detected)
    if len(seen):
        vectors_TD[seen] = network.frame_vectors(frames_TSSC, landmarks, seen)
    return vectors_TD


def _seen(network: SyncNet, frames_TSSC: np.ndarray, landmarks: Landmarks) -> np.ndarray | None:
    from df_models.encoders.face.syncnet import WIDTH, WINDOW_FRAMES, crop_faces

    vectors_TD = np.full((len(frames_TSSC), WIDTH), np.nan)
    boxes = face_boxes(landmarks, frames_TSSC.shape[1])
    if boxes is None or len(frames_TSSC) < WINDOW_FRAMES:
        return vectors_TD
    found = network.lips(crop_faces(frames_TSSC, boxes)).numpy()
    vectors_TD[: len(found)] = found
    return vectors_TD


def _heard(network: SyncNet, wave_N: np.ndarray, frames: int) -> np.ndarray:
    from df_models.encoders.face.syncnet import WIDTH

    vectors_TD = np.full((frames, WIDTH), np.nan)
    found = network.audio(wave_N[: samples_for(frames)]).numpy()[:frames]
    vectors_TD[: len(found)] = found
    return vectors_TD


def _unavailable(lacking: dict[str, str]) -> dict[str, str]:
    reasons = {}
    for spec in CATALOG:
        missing = [lacking[file] for need in spec.needs if (file := GIVEN_BY.get(need)) in lacking]
        if missing:
            reasons[spec.name] = missing[0]
    if "landmarker" in lacking:
        reasons |= {spec.name: lacking["landmarker"] for spec in SETS if spec.features in ("readings", "theval")}
    return reasons


def _landmarker(files: ReadersConfig) -> MediaPipeReader | None:
    if files.landmarker is None:
        return None
    from df_data.stages.landmarker import MediaPipeReader

    return MediaPipeReader(files.landmarker.path)


def _identity(files: ReadersConfig) -> FaceIdentity | None:
    if files.identity is None:
        return None
    from df_data.stages.identity import NETWORKS, FaceIdentity

    name, path = split_spec(files.identity)
    if path is None:
        name, path = "arcface", files.identity
    if name not in NETWORKS:
        raise UserError(f"readers.identity={files.identity}: {name!r} is none of {', '.join(NETWORKS)}")
    network, wanted = FaceIdentity(expand_path(path), NETWORKS[name]), NETWORKS[name].width
    if network.width != wanted:
        told = f"{path} gives {network.width} numbers for a face, and networks of the kind {name} give {wanted}"
        others = [kind for kind, other in NETWORKS.items() if other.width == network.width]
        hint = f"give readers.identity={others[0]}:{path}" if others else f"the kinds are {', '.join(NETWORKS)}"
        raise UserError(f"{told}; each kind has a normalisation of its own: {hint}")
    return network


def _quality(files: ReadersConfig) -> FaceQuality | None:
    return None if files.quality is None else FaceQuality(files.quality.path)


def _syncnet(files: ReadersConfig) -> SyncNet | None:
    if files.syncnet is None:
        return None
    from df_models.encoders.face.syncnet import load

    return load("syncnet_v2", str(files.syncnet.path))


def _vad(files: ReadersConfig) -> SileroVAD | None:
    if files.vad is None:
        return None
    from df_data.stages.voice import SileroVAD

    return SileroVAD(files.vad.path)


def _name(network: MediaPipeReader | UprightFaceNetwork | SyncNet | FlameReader | GazeReader | SileroVAD) -> str:
    return f"{network.id} ({network.sha256[:8]})"
