"""One input through the stages and the encoders, in this process or in a small pool of processes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from df_data.build_config import BuildConfig
from df_data.encode import Encoders, encode_pictures, mp4_bytes
from df_data.processes import be_a_worker
from df_data.sample import EncoderRecord, Sample, SampleMeta, to_members
from df_data.sources import Input, expand_path, read_words
from df_data.stages.landmarks import MediaPipeReader
from df_data.stages.prepare import PreparedClip, clip_windows, prepare_clip
from df_data.stages.readings import TRUTH_NAMES
from df_data.stages.rejection import Rejected
from df_models.encoders.yunet import YuNet
from df_models.errors import UserError

Members = dict[str, bytes]


@dataclass(frozen=True)
class InputResult:
    """What became of one input: its samples as bytes by key and suffix, or why there are none."""

    status: Literal["accepted", "rejected", "failed"]
    scores: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    error: str | None = None
    samples: dict[str, Members] = field(default_factory=dict)


class WorkerModels:
    """The frozen models that one worker needs, loaded once.

    Raises:
        UserError: a model is missing or unreadable.
    """

    def __init__(self, config: BuildConfig) -> None:
        self.config = config
        self.detector = YuNet(expand_path(config.models.face_detector))
        self.encoders = Encoders.load(config.video_vae, config.audio_encoder, config.reference_encoder)
        self.reader = MediaPipeReader(expand_path(config.models.face_landmarker))

    def close(self) -> None:
        """Free the landmarker's native memory."""
        self.reader.close()

    def records(self) -> dict[str, EncoderRecord]:
        """Return id and hash of every model by role, as they stand in manifests and samples."""
        records = self.encoders.records()
        records |= {
            role: EncoderRecord(id=model.id, sha256=model.sha256)
            for role, model in (("structure", self.reader), ("face_detector", self.detector))
        }
        return {role: record.model_copy(update={"id": _public_id(record.id)}) for role, record in records.items()}

    def process(self, made: Input) -> InputResult:
        """Take one video through all stages; a refusal or a broken file is a result, not an exception."""
        try:
            words = read_words(made.alignment) if made.alignment else []
            prepared = prepare_clip(made.path, self.config.stages, self.detector, self.reader)
            samples = self._encode(made, prepared, list(self._clips(made, prepared)), words)
        except Rejected as rejected:
            return InputResult("rejected", scores=rejected.scores, reason=rejected.reason)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            return InputResult("failed", error=_line(error))
        except (UserError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
            return InputResult("failed", error=_line(error))
        return InputResult("accepted", scores=prepared.scores, samples=samples)

    def _clips(self, made: Input, prepared: PreparedClip) -> Iterator[tuple[str, PreparedClip]]:
        clips, num_frames = self.config.clips, len(prepared.frames)
        length = clips.frames if made.split == "train" else clips.val_frames
        if length is None:
            yield made.key, prepared
            return
        starts = clip_windows(num_frames, length, clips.stride)
        if not starts:
            scores = prepared.scores | {"frames": float(num_frames)}
            raise Rejected("too_short", f"{num_frames} frames, a clip has {length}", scores)
        if made.split == "val":
            yield made.key, prepared.window(0, length)
            return
        for start in starts:
            yield f"{made.key}-{start:04d}", prepared.window(start, length)

    def _encode(
        self,
        made: Input,
        whole: PreparedClip,
        clips: list[tuple[str, PreparedClip]],
        words: list[tuple[str, float, float]],
    ) -> dict[str, Members]:
        """Encode the clips of one video, all of one length, together; return their members by key and suffix.

        The sound is encoded once for the whole video, so a clip's first and last features know what is said around
        it, as they do when a model generates.
        """
        audio = self.encoders.audio.encode(whole.wave, len(whole.frames)).half().cpu()
        frames = [clip.frames for _, clip in clips]
        references = [reference_frames(len(pixels), self.config.clips.references) for pixels in frames]
        samples: dict[str, Members] = {}
        for (key, clip), tensors in zip(clips, encode_pictures(self.encoders, frames, references), strict=True):
            first = clip.start - whole.start
            tensors |= {
                "structure": torch.from_numpy(clip.structure),
                "audio": audio[2 * first : 2 * (first + len(clip.frames))].clone(),
                "mouth_boxes": torch.from_numpy(clip.mouth_boxes),
                "truth": torch.from_numpy(clip.truth),
            }
            mp4 = mp4_bytes(clip.frames, clip.wave, lossless=False) if self.config.keep_video else None
            members = to_members(Sample(self._meta(made, key, clip, words), tensors, mp4))
            samples[key] = {name.partition(".")[2]: data for name, data in members.items()}
        return samples

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
            truth_names=TRUTH_NAMES,
            provenance={
                "start_s": begin,
                "crop": [round(v, 3) for v in (clip.crop.x, clip.crop.y, clip.crop.side)],
                "crop_rule": self.config.stages.crop,
                "interpolated_frames": [float(i) for i in np.flatnonzero(clip.interpolated)],
                "word_starts": [round(a, 4) for _, a, _ in inside],
                "word_ends": [round(b, 4) for _, _, b in inside],
            },
        )


def _public_id(name: str) -> str:
    """A model given as an absolute directory is named by its last part alone, so that shards tell nothing of a machine.

    A relative directory keeps its name: a run beside the dataset loads it again by that.
    """
    return Path(name).name if Path(name).is_absolute() else name


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def reference_frames(num_frames: int, count: int) -> list[int]:
    """Return ``count`` pixel frames spread evenly over a clip, its first and last among them."""
    return [round(index * (num_frames - 1) / max(1, count - 1)) for index in range(count)]


class Crew:
    """The workers of a build: with one, everything is done in this process; with more, in a pool of processes.

    A context manager. Models are loaded by the worker that needs them first.
    """

    def __init__(self, config: BuildConfig) -> None:
        self.config = config
        self._models: WorkerModels | None = None
        self._pool: ProcessPoolExecutor | None = None
        if config.workers > 1:
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(
                config.workers, mp_context=context, initializer=_start_worker, initargs=(config,)
            )

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self._models is not None:
            self._models.close()

    def records(self) -> dict[str, EncoderRecord]:
        """Return id and hash of every model by role.

        Raises:
            UserError: a model is missing or cannot be loaded.
        """
        return self._here().records() if self._pool is None else self._pool.submit(_worker_records).result()

    def run(self, todo: list[Input]) -> Iterator[tuple[Input, InputResult]]:
        """Process inputs and yield each with its result as it is finished; at most two per worker are under way.

        Raises:
            UserError: a worker process was killed from outside (out of memory) or crashed.
        """
        if self._pool is None:
            for made in todo:
                yield made, self._here().process(made)
            return
        try:
            yield from _drain(self._pool, todo, 2 * self.config.workers)
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died (out of memory?); run the command again to go on, "
                "with workers=1 to see which input"
            ) from error

    def _here(self) -> WorkerModels:
        self._models = self._models or WorkerModels(self.config)
        return self._models


def _drain(pool: ProcessPoolExecutor, todo: list[Input], at_once: int) -> Iterator[tuple[Input, InputResult]]:
    waiting = iter(todo)
    running: dict[Future[InputResult], Input] = {}
    while True:
        while len(running) < at_once and (made := next(waiting, None)) is not None:
            running[pool.submit(_worker_process, made)] = made
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()


class _Worker:
    """State of a worker process: its configuration, and its models once something needed them."""

    config: BuildConfig
    loaded: WorkerModels | None = None

    @classmethod
    def models(cls) -> WorkerModels:
        cls.loaded = cls.loaded or WorkerModels(cls.config)
        return cls.loaded


def _start_worker(config: BuildConfig) -> None:
    be_a_worker()
    _Worker.config = config


def _worker_records() -> dict[str, EncoderRecord]:
    return _Worker.models().records()


def _worker_process(made: Input) -> InputResult:
    return _Worker.models().process(made)
