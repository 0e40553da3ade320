"""One input through the stages and the encoders: what a worker of a build does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from df_data.build.config import LANDMARK_STRUCTURE, BuildConfig
from df_data.build.devices import resolve_devices
from df_data.build.encode import Encoders, encode_images, mp4_bytes
from df_data.build.pool.faults import error_line, is_ours
from df_data.build.pool.messages import Heartbeat, InputResult, MadeSample, Outcome
from df_data.build.prompt import caption_folder, encode_prompt, read_caption
from df_data.build.rejects import file_image
from df_data.common.timing import stage, stopwatch
from df_data.format.ledger import HALVED
from df_data.format.sample import NO_FACE, WEIGHT_LOWERED_BY, EncoderRecord, Sample, SampleMeta, to_members
from df_data.sources.listing import Input
from df_data.sources.words import read_words
from df_data.stages.face_vectors import FaceEncoders
from df_data.stages.identity import FaceIdentity
from df_data.stages.judges import load_judges
from df_data.stages.landmarker import MediaPipeReader
from df_data.stages.prepare import (
    PreparedClip,
    StageModels,
    check_detector,
    clip_windows,
    prepare_clips,
    prepare_general,
)
from df_data.stages.readings import TRUTH_NAMES
from df_data.stages.rejection import Rejected
from df_data.stages.voice import silero_vad
from df_models.encoders import load_flame_encoder, load_motion_extractor
from df_models.encoders.face.face_detectors import load_face_detector
from df_models.structure import LIVEPORTRAIT_70
from df_models.text import Prompt

__all__ = ["GeneralModels", "InputResult", "WorkerModels", "reference_frames", "worker_models"]


def worker_models(config: BuildConfig) -> WorkerModels:
    """Return the models of a worker: of clips of faces, or of general video."""
    return WorkerModels(config) if config.faces else GeneralModels(config)


class WorkerModels:
    """The frozen models that one worker needs, loaded once.

    Args:
        clock: what the seconds of the stages are read from.

    Raises:
        UserError: a model is missing or unreadable.
    """

    def __init__(self, config: BuildConfig, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.config, self._clock = config, clock
        device = resolve_devices(config.device)[0]
        if device != "cpu":
            torch.backends.cudnn.allow_tf32 = False  # float32 is float32, for angles above all
        self.prompt = None if config.text is None else encode_prompt(config.text, config.dtype)
        self.detector = load_face_detector(config.models.face_detector)
        check_detector(config.stages, self.detector)
        self.judges = load_judges(config.models.syncnet, config.models.head_pose, device)
        named = (config.video_vae, config.audio_encoder, config.reference_encoder)
        self.encoders = Encoders.load(*named, device=device, precision=config.dtype)
        self.faces = _face_encoders(config, device)
        self.reader = MediaPipeReader(config.models.face_landmarker.path)
        network = config.models.face_identity
        self.identity = None if network is None else FaceIdentity(network.path)

    def close(self) -> None:
        """Free the landmarker's native memory."""
        self.reader.close()

    def records(self) -> dict[str, EncoderRecord]:
        """Return id and hash of every model by role, as they stand in manifests and samples."""
        records = self.encoders.records()
        records |= {role: EncoderRecord(id=model.id, sha256=model.sha256) for role, model in self._others().items()}
        return {role: record.model_copy(update={"id": _public_id(record.id)}) for role, record in records.items()}

    def _others(self) -> dict[str, Any]:
        """Return the models beside the encoders that decide what a dataset holds, by role."""
        others: dict[str, Any] = {"face_detector": self.detector}
        if self.faces.motion is None:
            others["structure"] = self.reader
        else:
            others |= {"structure": self.faces.motion, "face_landmarker": self.reader}
        if self.faces.flame is not None:
            others["flame"] = self.faces.flame
        if self.prompt is not None:
            others["text"] = self.prompt.record
        others |= self.judges.models()
        if self.config.stages.quality.voice.enabled:
            others["voice"] = silero_vad()
        if self.identity is not None:
            others["identity"] = self.identity
        return others

    def process(self, made: Input) -> Iterator[Outcome | Heartbeat]:
        """Take one video through all stages; yield its samples and, last, how it ended.

        A refusal, a broken file and a fault of a stage are results, not exceptions.

        Raises:
            OSError: the disk is full.
            ImportError: a package is missing.
        """
        scores: dict[str, float] = {}
        keys: list[str] = []
        with stopwatch(self._clock) as watch:
            try:
                for sample in self._samples(made, scores):
                    keys += [sample.key] if isinstance(sample, MadeSample) else []
                    with watch.counting(None):
                        yield sample
                result = InputResult("accepted", scores=scores, samples=tuple(keys))
            except Rejected as rejected:
                result = _refused(made, rejected)
            except Exception as error:
                if is_ours(error):
                    raise
                result = InputResult("failed", error=error_line(error, made.path))
        yield replace(result, seconds=watch.seconds)

    def _samples(self, made: Input, scores: dict[str, float]) -> Iterator[MadeSample | Heartbeat]:
        """Yield the samples of a video, stretch by stretch, and a sign of life for each stretch that gives none.

        ``scores`` is filled in on the way. A video is accepted if one of its stretches is. Its scores are then the
        first good stretch's, with ``stretches`` and, by reason, how many were ``refused_...`` and how many samples have
        half their weight for it, ``halved_...``.

        Raises:
            Rejected: ``duplicate``; all stretches were refused; the first one's reason.
        """
        if made.same_as is not None:
            raise Rejected("duplicate", f"the same file as {made.same_as}, byte for byte")
        words = read_words(made.alignment) if made.alignment else []
        refused: list[Rejected] = []
        halved: Counter[str] = Counter()
        left_out: Counter[int] = Counter()
        accepted = 0
        for index, found in enumerate(self._stretches(made)):
            try:
                if isinstance(found, Rejected):
                    raise found
                clips, left_out[index] = self._clips(made, found, index)
            except Rejected as rejected:
                refused.append(rejected)
                yield Heartbeat()
                continue
            accepted += 1
            scores |= found.scores if accepted == 1 else {}
            halved.update(fault for _, clip in clips for fault in clip.faults)
            yield from self._encode(made, found, clips, words)
        if not accepted:
            raise refused[0]
        scores |= {"stretches": float(accepted + len(refused))}
        scores |= {f"refused_{reason}": float(n) for reason, n in Counter(r.reason for r in refused).items()}
        scores |= {HALVED + fault: float(n) for fault, n in halved.items()}
        scores |= {"left_out_samples": float(left_out.total())} if left_out.total() else {}

    def _stretches(self, made: Input) -> Iterator[PreparedClip | Rejected]:
        stretches = self._prepared(made)
        while True:
            with stage("prepare"):
                found = next(stretches, None)
            if found is None:
                return
            yield found

    def _prepared(self, made: Input) -> Iterator[PreparedClip | Rejected]:
        models = StageModels(self.detector, self.reader, self.identity, self.faces, self.judges)
        return prepare_clips(made.path, self.config.stages, models)

    def _clips(self, made: Input, prepared: PreparedClip, stretch: int) -> tuple[list[tuple[str, PreparedClip]], int]:
        """Return the clips of a stretch with their keys, each judged for itself, and how many were refused.

        Of a held-out stretch that is its first good one.

        Raises:
            Rejected: all of them were, or there are none.
        """
        good: list[tuple[str, PreparedClip]] = []
        refused: list[Rejected] = []
        for key, clip in self._windows(made, prepared, stretch):
            try:
                good.append((key, clip.judged(self.config.stages.quality)))
            except Rejected as rejected:
                refused.append(rejected)
            if good and made.split == "val":
                break
        if not good:
            raise refused[0]
        return good, len(refused)

    def _windows(self, made: Input, prepared: PreparedClip, stretch: int) -> Iterator[tuple[str, PreparedClip]]:
        """Yield the clips of a stretch with their keys; the first stretch's have no mark of it.

        Of a held-out stretch one is kept, so all have its name.
        """
        name = f"{made.key}-s{stretch:04d}" if stretch else made.key
        clips, num_frames = self.config.clips, len(prepared.frames)
        length = clips.frames if made.split == "train" else clips.val_frames
        least = clips.frames or 1
        if length is None or (made.split == "val" and least <= num_frames < length):
            yield name, prepared
            return
        starts = clip_windows(num_frames, length, clips.stride)
        if not starts:
            scores = prepared.scores | {"frames": float(num_frames)}
            raise Rejected("too_short", f"{num_frames} frames, a clip has {length}", scores)
        for start in starts:
            yield name if made.split == "val" else f"{name}-{start:04d}", prepared.window(start, length)

    def _encode(
        self,
        made: Input,
        whole: PreparedClip,
        clips: list[tuple[str, PreparedClip]],
        words: list[tuple[str, float, float]],
    ) -> Iterator[MadeSample]:
        """Encode the clips of one stretch, all of one length.

        The audio is encoded once for the whole video, so a clip's first and last features know what is said around
        it, as they do when a model generates.
        """
        audio = self._hear(whole)
        frames = [clip.frames for _, clip in clips]
        references = [reference_frames(len(pixels), self.config.clips.references) for pixels in frames]
        with stage("vae"):
            images = encode_images(self.encoders, frames, references, self.config.batch)
        for (key, clip), tensors in zip(clips, images, strict=True):
            first = clip.start - whole.start
            if audio is not None:
                tensors |= {
                    "structure": torch.from_numpy(clip.structure),
                    "audio": audio[2 * first : 2 * (first + len(clip.frames))].clone(),
                    "mouth_boxes": torch.from_numpy(clip.mouth_boxes),
                    "truth": torch.from_numpy(clip.truth),
                }
            if clip.identity is not None:
                tensors["identity_vector"] = torch.from_numpy(clip.identity)
            if clip.flame is not None:
                tensors["flame"] = torch.from_numpy(clip.flame)
            if (text := self._text(made)) is not None:
                tensors["text_features"] = text.features_LD
            mp4 = None
            if self.config.keep_video:
                with stage("mp4"):
                    mp4 = mp4_bytes(clip.frames, None if audio is None else clip.wave, lossless=False)
            with stage("pack"):
                members = to_members(Sample(self._meta(made, key, clip, words), tensors, mp4))
            yield MadeSample(key, members)

    def _hear(self, whole: PreparedClip) -> Tensor | None:
        """Return audio features ``[2P, D]`` of a stretch; None for general video."""
        encoder = self.encoders.audio
        if encoder is None:
            return None
        with stage("audio"):
            return encoder.encode(whole.wave, len(whole.frames)).half().cpu()

    def _text(self, made: Input) -> Prompt | None:
        """The words of a video: its own caption's, else the build's prompt; None if the build has no text."""
        text = self.config.text
        if text is None or self.prompt is None:
            return None
        if made.caption is None:
            return Prompt(text.prompt, self.prompt.features_LD)
        folder = caption_folder(self.config.out.path, self.prompt.record.sha256, self.config.dtype)
        return read_caption(folder, made.caption)

    def _meta(self, made: Input, key: str, clip: PreparedClip, words: list[tuple[str, float, float]]) -> SampleMeta:
        num_frames, size = clip.frames.shape[:2]
        begin, end = clip.start / 25, (clip.start + num_frames) / 25
        inside = [(word, a - begin, b - begin) for word, a, b in words if begin <= (a + b) / 2 < end]
        return SampleMeta(
            key=key,
            source=made.name,
            licence=made.licence,
            identity=made.identity,
            split=made.split,
            num_frames=num_frames,
            height=size,
            width=size,
            scores={name: round(float(value), 6) for name, value in clip.scores.items()},
            weight=clip.weight,
            encoders=self.records(),
            text=" ".join(word for word, _, _ in inside) or None,
            prompt=None if (prompt := self._text(made)) is None else prompt.words,
            structure_layout=LIVEPORTRAIT_70.name if self.config.faces else NO_FACE,
            truth_names=TRUTH_NAMES if self.config.faces else None,
            provenance={
                **made.provenance,
                "start_s": begin,
                "crop": [round(v, 3) for v in (clip.crop.x, clip.crop.y, clip.crop.side)],
                "crop_rule": self.config.crop_rule,
                "interpolated_frames": [float(i) for i in np.flatnonzero(clip.interpolated)],
                "word_starts": [round(a, 4) for _, a, _ in inside],
                "word_ends": [round(b, 4) for _, _, b in inside],
                **({WEIGHT_LOWERED_BY: ", ".join(clip.faults)} if clip.faults else {}),
            },
        )


class GeneralModels(WorkerModels):
    """What a worker needs for general video (``faces: false``): no detector, landmarker or audio encoder."""

    def __init__(self, config: BuildConfig, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.config, self._clock = config, clock
        device = resolve_devices(config.device)[0]
        self.prompt = None if config.text is None else encode_prompt(config.text, config.dtype)
        named = (config.video_vae, None, config.reference_encoder)
        self.encoders = Encoders.load(*named, device=device, precision=config.dtype)

    def close(self) -> None:
        """There is nothing to free."""

    def _others(self) -> dict[str, Any]:
        return {} if self.prompt is None else {"text": self.prompt.record}

    def _prepared(self, made: Input) -> Iterator[PreparedClip | Rejected]:
        return prepare_general(made.path, self.config.stages)


def _face_encoders(config: BuildConfig, device: str) -> FaceEncoders:
    """Load those that are asked for; always in float32: bfloat16 makes LivePortrait's angles jitter by 0.3 degrees."""
    from_landmarks = config.structure == LANDMARK_STRUCTURE
    motion = None if from_landmarks else load_motion_extractor(config.structure).to(device=device)
    flame = None if config.flame is None else load_flame_encoder(config.flame).to(device=device)
    return FaceEncoders(motion, flame, config.batch.faces)


def _refused(made: Input, rejected: Rejected) -> InputResult:
    return InputResult(
        "rejected",
        scores=rejected.scores,
        reason=rejected.reason,
        detail=rejected.detail,
        image=file_image(made.path),
    )


def _public_id(name: str) -> str:
    """A model given as an absolute directory is named by its last part alone, so that shards tell nothing of a machine.

    A relative directory keeps its name: a run beside the dataset loads it again by that.
    """
    return Path(name).name if Path(name).is_absolute() else name


def reference_frames(num_frames: int, count: int) -> list[int]:
    """Return ``count`` pixel frames spread evenly over a clip, its first and last among them."""
    return [round(index * (num_frames - 1) / max(1, count - 1)) for index in range(count)]
