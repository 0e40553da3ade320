"""One input through all stages up to the encoders: the order of the stages, and what comes out.

Shape legend: T frames, S side of the crop in pixels, N = 640 T samples.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from df_data.stages.agreement import (
    AgreementFilter,
    agreement_scores,
    doubts,
    flame_view,
    liveportrait_view,
    mediapipe_view,
)
from df_data.stages.cut_off import check_lips_inside, lips_outside
from df_data.stages.decode import DecodedClip, iter_segments
from df_data.stages.face_vectors import FaceEncoders, FaceVectors
from df_data.stages.faces import FaceDetector, FaceFilter, FaceTrack, detect_faces, track_face
from df_data.stages.gaps import fill_gaps
from df_data.stages.identity import FaceIdentity
from df_data.stages.judges import Judges
from df_data.stages.landmarker import READ_SIZE, MediaPipeReader
from df_data.stages.landmarks import Landmarks
from df_data.stages.measure import measure
from df_data.stages.occlusion import require_yunet
from df_data.stages.quality import QualityFilter, audio_scores, check_audio, clip_weight
from df_data.stages.readings import TRUTH_NAMES, mouth_boxes, readings_of, structure_vectors
from df_data.stages.rejection import Rejected
from df_data.stages.samples import FROZEN, STILL_LIPS, is_frozen, lips_are_still
from df_data.stages.shots import longest_shot, shot_cuts
from df_data.stages.sync import FileSync
from df_data.stages.transitions import person_changes
from df_models.crop import CropBox, CropRule, crop_resize
from df_models.errors import UserError
from df_models.settings import FrozenModel
from df_models.time import FPS, samples_for, valid_pixel_length

ENLARGED = "enlarged"
"""The soft fault of a crop that has fewer pixels than the clip that is made of it."""
RATE_SLACK = 0.01
"""Share by which a rate may miss its least: it is a mean of time stamps, and 20000/1001 is called 20 everywhere."""
LOOK_EVERY = 8
"""Frames between two looks of the face recognition network at who is to be seen."""
MOUTH_OPEN = TRUTH_NAMES.index("mouth_open")


class StageConfig(FrozenModel):
    """Settings of the stages, in their order.

    Attributes:
        min_seconds: shorter stretches are rejected.
        segment_seconds: a video is taken in stretches of at most this length, each judged and cropped for itself.
        max_seconds: of a longer video the beginning is used; null: all of it.
        min_source_fps: least frames a second of the file; of fewer than 20, more than one in five frames at 25 is a
            repeat, in which lips stand still that moved. 0: any.
        min_shot_share: of a video with cuts the longest shot is used, if it lasts this share of the video.
        faces: filter on the detected faces.
        crop: ``detector:scale:vertical_offset`` (:class:`df_models.crop.CropRule`).
        size: side of the crop in pixels, a multiple of 16.
        max_damaged: share of the images of a stretch that the decoder may have had to guess.
        max_gap: longest run of frames without landmarks that is interpolated.
        max_lips_outside: share of the frames in which the lips may reach the image's edge or lie beyond it.
        quality: limits on audio, image and motion.
        agreement: limits on how far those who read the head's motion are apart, where there are several.
    """

    min_seconds: float = Field(default=2.0, gt=0)
    segment_seconds: float = Field(default=10.0, gt=0)
    max_seconds: float | None = Field(default=None, gt=0)
    min_source_fps: float = Field(default=20.0, ge=0)
    min_shot_share: float = Field(default=0.75, gt=0, le=1)
    faces: FaceFilter = FaceFilter()
    crop: str = str(CropRule())
    size: int = Field(default=256, ge=16, multiple_of=16)
    max_damaged: float = Field(default=0.02, ge=0, le=1)
    max_gap: int = Field(default=2, ge=0)
    max_lips_outside: float = Field(default=0.1, ge=0, le=1)
    quality: QualityFilter = QualityFilter()
    agreement: AgreementFilter = AgreementFilter()

    @field_validator("crop")
    @classmethod
    def _readable(cls, value: str) -> str:
        CropRule.parse(value)
        return value


@dataclass(frozen=True)
class PreparedClip:
    """A clip ready for the encoders.

    Attributes:
        frames: uint8 RGB [T, S, S, 3] at 25 fps, T = 1 + 4n.
        wave: float32 [N] at 16 kHz.
        structure: float32 [T, 70], of LivePortrait if its extractor was given, else of the encoder ``mediapipe``.
        truth: float32 [T, 7], the measures named by ``df_data.stages.readings.TRUTH_NAMES``.
        mouth_boxes: float32 [T, 4] in pixels of the crop.
        interpolated: bool [T], frames whose landmarks were filled in.
        crop: where the crop lies in the source.
        start: first frame used, counted at 25 fps from the source's first.
        scores: everything the filters looked at.
        faults: names of the soft faults that the scores show; each halves the sampling weight.
        identity: float32 [D], the face's identity vector, if a network for it was given.
        flame: float32 [T, 159], if an encoder for it was given.
        frozen: bool [T], frames that stand still; None: not looked for.
        speech: bool [T], frames in which somebody speaks; None: not looked for.
    """

    frames: np.ndarray
    wave: np.ndarray
    structure: np.ndarray
    truth: np.ndarray
    mouth_boxes: np.ndarray
    interpolated: np.ndarray
    crop: CropBox
    start: int
    scores: dict[str, float]
    faults: tuple[str, ...]
    identity: np.ndarray | None = None
    flame: np.ndarray | None = None
    frozen: np.ndarray | None = None
    speech: np.ndarray | None = None

    @property
    def weight(self) -> float:
        """Sampling weight."""
        return clip_weight(self.faults)

    def window(self, start: int, num_frames: int) -> PreparedClip:
        """Return the part of ``num_frames`` frames from ``start``, audio and all; scores stay the whole clip's."""
        part = slice(start, start + num_frames)
        return PreparedClip(
            frames=self.frames[part],
            wave=self.wave[samples_for(start) : samples_for(start + num_frames)],
            structure=self.structure[part],
            truth=self.truth[part],
            mouth_boxes=self.mouth_boxes[part],
            interpolated=self.interpolated[part],
            crop=self.crop,
            start=self.start + start,
            scores=self.scores,
            faults=self.faults,
            identity=self.identity,
            flame=None if self.flame is None else self.flame[part],
            frozen=None if self.frozen is None else self.frozen[part],
            speech=None if self.speech is None else self.speech[part],
        )

    def judged(self, quality: QualityFilter) -> PreparedClip:
        """Return the clip with the faults that it has by itself, beside its stretch's.

        Raises:
            Rejected: ``frozen_picture``.
        """
        if self.frozen is None or self.speech is None:
            return self
        if is_frozen(self.frozen, quality.frozen.max_share):
            raise Rejected(FROZEN, f"{self.frozen.mean():.0%} of the sample's images stand still", self.scores)
        still = lips_are_still(self.truth[:, MOUTH_OPEN], self.speech, quality.min_mouth_std)
        return replace(self, faults=self.faults + (STILL_LIPS,) * (still and STILL_LIPS not in self.faults))


def check_detector(config: StageConfig, detector: FaceDetector) -> None:
    """Refuse, before anything is decoded, a detector that the settings of the stages are not made for.

    Raises:
        UserError: the crop's rule names another detector, whose boxes have other margins, or the occlusion stage is on
            and the detector is not YuNet.
    """
    rule, name = CropRule.parse(config.crop), getattr(detector, "id", None)
    if rule.detector != name:
        raise UserError(
            f"stages.crop is {config.crop!r} but the face detector is {name}: boxes of another detector have other "
            f"margins; set stages.crop={name}:{rule.scale:g}:{rule.vertical_offset:g} or models.face_detector"
        )
    if config.quality.occlusion.enabled:
        require_yunet(detector)


@dataclass(frozen=True)
class StageModels:
    """The frozen models that the stages up to the encoders ask.

    Attributes:
        detector: finds faces.
        reader: finds landmarks.
        identity: tells whose face it is; None: no identity vector.
        encoders: of motion and FLAME vectors; empty: the structure vector comes from the landmarks.
        judges: networks that only judge.
    """

    detector: FaceDetector
    reader: MediaPipeReader
    identity: FaceIdentity | None = None
    encoders: FaceEncoders = field(default_factory=FaceEncoders)
    judges: Judges = field(default_factory=Judges)


def prepare_clips(
    path: Path, config: StageConfig, models: StageModels
) -> Generator[PreparedClip | Rejected, None, None]:
    """Decode a video once and yield, for each of its stretches, the clip or why it was refused.

    Raises:
        Rejected: no stretch can be had at all (:func:`~df_data.stages.decode.iter_segments`).
        UserError: the file cannot be decoded.
    """
    segments = iter_segments(
        path,
        min_seconds=config.min_seconds,
        segment_seconds=config.segment_seconds,
        max_seconds=config.max_seconds,
    )
    known = FileSync()
    for decoded in segments:
        scores = {"seconds": len(decoded.frames) / FPS, "source_fps": decoded.source_fps}
        try:
            yield _prepare(decoded, config, models, scores, known)
        except Rejected as rejected:
            yield Rejected(rejected.reason, rejected.detail, scores | rejected.scores)


def _prepare(
    decoded: DecodedClip, config: StageConfig, models: StageModels, scores: dict[str, float], known: FileSync
) -> PreparedClip:
    """Take one stretch through the stages; ``scores`` grows on the way, so that a refusal has them too."""
    first, last = _usable_shot(decoded, config, scores)
    track = _one_face(decoded.frames[first:last], config, models.detector, scores)
    start = first + track.start
    stop = start + valid_pixel_length(track.stop - track.start)
    frames, wave = decoded.frames[start:stop], decoded.wave[samples_for(start) : samples_for(stop)]
    large = crop_resize(frames, track.crop, max(READ_SIZE, config.size))
    seen = models.reader.landmarks(large)
    scores["landmark_rate"] = float(seen.detected.mean())
    landmarks = fill_gaps(seen, config.max_gap)
    points = (landmarks.points[..., :2] + 1) * track.crop.side / 2 + [track.crop.x, track.crop.y]
    scores["lips_outside"] = lips_outside(points, *decoded.frames.shape[1:3])
    check_lips_inside(scores["lips_outside"], config.max_lips_outside, scores)
    readings = readings_of(landmarks)
    judged = models.judges.judge(frames, track.box_track(len(frames)), wave, landmarks.rotation)
    measured = measure(large, wave, readings, models.detector, config.quality, judged, known)
    scores |= measured.scores
    structure = structure_vectors(landmarks)
    vectors = models.encoders.read(frames, track.boxes, points)
    agreed = _agreement(vectors, structure, readings.mouth_open)
    scores |= agreed
    return PreparedClip(
        frames=large if large.shape[1] == config.size else crop_resize(frames, track.crop, config.size),
        wave=wave,
        structure=structure if vectors.motion is None else vectors.motion,
        truth=readings.table().astype(np.float32),
        mouth_boxes=mouth_boxes(landmarks.points, config.size),
        interpolated=~seen.detected,
        crop=track.crop,
        start=round(decoded.start_s * FPS) + start,
        scores=scores,
        faults=measured.faults + doubts(agreed, config.agreement) + ((ENLARGED,) if scores["enlargement"] > 1 else ()),
        identity=None if models.identity is None else _one_person(models.identity, large, landmarks, scores),
        flame=vectors.flame,
        frozen=measured.frozen,
        speech=measured.speech,
    )


def _one_person(
    network: FaceIdentity, frames_TSSC: np.ndarray, landmarks: Landmarks, scores: dict[str, float]
) -> np.ndarray:
    """Return the identity vector of a clip, or refuse one that shows a person and then another."""
    if person_changes(network.frame_vectors(frames_TSSC, landmarks, np.arange(0, len(frames_TSSC), LOOK_EVERY))):
        raise Rejected("person_changes", "the face is another person's before than after", scores)
    return network.clip_vector(frames_TSSC, landmarks)


def _usable_shot(decoded: DecodedClip, config: StageConfig, scores: dict[str, float]) -> tuple[int, int]:
    """Return the frames of the longest shot, or refuse damaged images, bad audio, and videos cut too often."""
    _check_frames(decoded, config, scores)
    if decoded.antiphase:
        raise Rejected("antiphase_sound", "the audio's channels cancel each other: one is the other upside down")
    scores |= audio_scores(decoded.wave, decoded.sound_share) | {"sound_offset_s": decoded.sound_offset_s}
    check_audio(scores, config.quality)
    return _longest_shot(decoded, config, scores)


def _check_frames(decoded: DecodedClip, config: StageConfig, scores: dict[str, float]) -> None:
    if decoded.source_fps < (1.0 - RATE_SLACK) * config.min_source_fps:
        raise Rejected("frame_rate_too_low", f"{decoded.source_fps:.3g} frames a second, {FPS} are made of them")
    scores["damaged_share"] = decoded.damaged_frames / len(decoded.frames)
    if scores["damaged_share"] > config.max_damaged:
        raise Rejected("damaged_pictures", f"{scores['damaged_share']:.0%} of the images are damaged")


def _longest_shot(decoded: DecodedClip, config: StageConfig, scores: dict[str, float]) -> tuple[int, int]:
    cuts = shot_cuts(decoded.frames)
    first, last = longest_shot(cuts, len(decoded.frames))
    scores |= {"shot_cuts": float(len(cuts)), "shot_share": (last - first) / len(decoded.frames)}
    if scores["shot_share"] < config.min_shot_share:
        raise Rejected("shot_cut", f"{len(cuts)} cuts, the longest shot is {scores['shot_share']:.0%} of the video")
    return first, last


def _one_face(
    shot_THWC: np.ndarray, config: StageConfig, detector: FaceDetector, scores: dict[str, float]
) -> FaceTrack:
    """Return the one face of a shot, or refuse it."""
    found = detect_faces(shot_THWC, detector, config.faces.detect_every)
    num, height, width = shot_THWC.shape[:3]
    rule = CropRule.parse(config.crop)
    filters = config.faces.model_copy(update={"min_face": config.faces.least_face(config.size, rule)})
    track = track_face(found, (num, height, width), filters, rule)
    scores |= track.scores | {"enlargement": config.size / track.crop.side}
    return track


def _agreement(vectors: FaceVectors, structure_TD: np.ndarray, mouth_open_T: np.ndarray) -> dict[str, float]:
    views = {} if vectors.motion is None else {"liveportrait": liveportrait_view(vectors.motion)}
    views |= {} if vectors.flame is None else {"flame": flame_view(vectors.flame)}
    return agreement_scores(views | {"mediapipe": mediapipe_view(structure_TD, mouth_open_T)})


def prepare_general(path: Path, config: StageConfig) -> Generator[PreparedClip | Rejected, None, None]:
    """:func:`prepare_clips` of general video: whole frames, scaled and cut to the square in their middle.

    Nothing is asked of faces and audio; what a clip has of them is of width 0, and its wave is silent.
    """
    segments = iter_segments(
        path,
        min_seconds=config.min_seconds,
        segment_seconds=config.segment_seconds,
        max_seconds=config.max_seconds,
        needs_audio=False,
    )
    for decoded in segments:
        scores = {"seconds": len(decoded.frames) / FPS, "source_fps": decoded.source_fps}
        try:
            yield _prepare_general(decoded, config, scores)
        except Rejected as rejected:
            yield Rejected(rejected.reason, rejected.detail, scores | rejected.scores)


def _prepare_general(decoded: DecodedClip, config: StageConfig, scores: dict[str, float]) -> PreparedClip:
    _check_frames(decoded, config, scores)
    first, last = _longest_shot(decoded, config, scores)
    count = valid_pixel_length(last - first)
    frames = decoded.frames[first : first + count]
    height, width = frames.shape[1:3]
    side = min(height, width)
    if side < config.size:
        raise Rejected("picture_too_small", f"images of {width}x{height}, clips of {config.size} a side are wanted")
    box = CropBox((width - side) / 2, (height - side) / 2, side)
    nothing = np.empty((count, 0), np.float32)
    return PreparedClip(
        frames=crop_resize(frames, box, config.size),
        wave=decoded.wave[samples_for(first) : samples_for(first + count)],
        structure=nothing,
        truth=nothing,
        mouth_boxes=nothing,
        interpolated=np.zeros(count, dtype=bool),
        crop=box,
        start=round(decoded.start_s * FPS) + first,
        scores=scores,
        faults=(),
    )


def clip_windows(num_frames: int, clip_frames: int, clip_stride: int) -> list[int]:
    """Return the starts of the windows of ``clip_frames`` that lie within ``num_frames``, ``clip_stride`` apart.

    The last window is moved to end with the clip, so that its sentence's end is seen too; a clip shorter than a
    window gives none.
    """
    last = num_frames - clip_frames
    if last < 0:
        return []
    starts = list(range(0, last + 1, clip_stride))
    return starts if starts[-1] == last else [*starts, last]
