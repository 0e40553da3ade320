"""Makes the clips of a list: several at once, and those alone that are not there yet.

``generated.jsonl`` beside the clips records what each was made of, so that the same command goes on after any end: a
clip whose portrait, speech, seed, settings and model are the same is not made again. A clip that fails is one line, and
the others are made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from df_infer.clip_decoder import GeneratedClip
from df_infer.credentials import Credentials
from df_infer.hearing.loudness import levelled
from df_infer.hearing.speech import frames_covering
from df_infer.many.manifest import Item
from df_infer.many.together import Wanted, stream_together
from df_infer.pipeline import EncodedPortrait, Pipeline
from df_infer.rollout import RolloutConfig
from df_infer.run_log import read_log
from df_models.errors import UserError
from df_models.files import check_output, require_file, safe_join, sha256_file
from df_models.locks import one_writer
from df_models.media import AudioFile, read_audio, read_image
from df_models.media.video import VideoWriter

RECORD = "generated.jsonl"


class Made(NamedTuple):
    """How many clips were made, were there already, and failed."""

    made: int
    there: int
    failed: int

    def __str__(self) -> str:
        return f"{self.made} clips made, {self.there} were there, {self.failed} failed"


@dataclass(frozen=True)
class Job:
    """How to make the clips of a list.

    Attributes:
        model: hash of the model's weights.
        together: clips in a batch.
        signer: signs each video as generated, or None.
    """

    pipeline: Pipeline
    rollout: RolloutConfig
    model: str
    out: Path
    together: int = 1
    cropped: bool = False
    keep_level: bool = False
    signer: Credentials | None = None


class _Ready(NamedTuple):
    item: Item
    key: str
    wanted: Wanted


def make_all(job: Job, items: Sequence[Item], tell: Callable[[str], None]) -> Made:
    """Make all clips of a list that are not there; ``tell`` is given a line for each that is made or fails.

    Raises:
        UserError: the model makes no video, or another process writes to the directory.
        KeyboardInterrupt: with a line on what is there by then.
    """
    if not job.pipeline.model.config.has_video:
        raise UserError("a list of clips needs a model with video; this one makes structure alone")
    with one_writer(job.out, "df-infer"), _record(job.out / RECORD) as file:
        known = {line["out"]: line["key"] for line in read_log(job.out / RECORD) if {"out", "key"} <= line.keys()}
        counts = {"made": 0, "there": 0, "failed": 0}

        def failed(item: Item, error: Exception) -> None:
            counts["failed"] += 1
            file.write(json.dumps({"out": item.out, "failed": str(error)}) + "\n")
            tell(f"{item.out}: failed: {error}")

        try:
            for group in _groups(job, items, known, counts, failed):
                for ready, error in _make_group(job, group):
                    if error is not None:
                        failed(ready.item, error)
                        continue
                    counts["made"] += 1
                    file.write(json.dumps({"out": ready.item.out, "key": ready.key, "seed": ready.item.seed}) + "\n")
                    tell(f"{ready.item.out}: {ready.wanted.num_frames} frames")
                file.flush()
        except KeyboardInterrupt as interrupt:
            told = f"{job.out}: {Made(**counts)}, the others are not recorded; the same command makes them"
            raise type(interrupt)(told) from interrupt
    return Made(**counts)


def _record(path: Path) -> TextIO:
    """Open the record to go on with; a last line that a crash cut short is ended, so that the next stands alone."""
    with path.open("a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        if file.read(1) not in (b"", b"\n"):
            file.write(b"\n")
    return path.open("a", encoding="utf-8")


def _groups(
    job: Job,
    items: Sequence[Item],
    known: dict[str, str],
    counts: dict[str, int],
    failed: Callable[[Item, Exception], None],
) -> Iterator[list[_Ready]]:
    """Yield the clips to make, as many as go together; a portrait or speech that cannot be read is a failure."""
    group: list[_Ready] = []
    for item in items:
        try:
            key = _key(job, item)
            place = safe_join(job.out, item.out)
            if known.get(item.out) == key and place.is_file():
                counts["there"] += 1
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            check_output(place, inputs=[Path(item.image), Path(item.audio)])
            ready = _Ready(item, key, _wanted(job, item))
        except (UserError, OSError) as error:
            failed(item, error)
            continue
        alike = job.rollout.chunk == 1 or not group or group[0].wanted.num_frames == ready.wanted.num_frames
        if group and (len(group) == job.together or not alike):
            yield group
            group = []
        group.append(ready)
    if group:
        yield group


def _wanted(job: Job, item: Item) -> Wanted:
    image = read_image(Path(item.image)) if item.image else None
    heard_N = read_audio(item.audio)
    count = frames_covering(heard_N)
    if not job.keep_level and job.pipeline.audio_encoder is not None:
        heard_N = levelled(heard_N, job.pipeline.model.config.speech_level)
    portrait: EncodedPortrait = job.pipeline.encoded(image, job.cropped)
    return Wanted(portrait, heard_N, count, item.seed)


def _key(job: Job, item: Item) -> str:
    """What a clip is made of, as a hash."""
    for path in filter(None, (item.image, item.audio)):
        require_file(path)
    prompt = job.pipeline.prompt
    facts = {
        "image": sha256_file(item.image) if item.image else "",
        "audio": sha256_file(item.audio),
        "seed": item.seed,
        "rollout": job.rollout.model_dump(),
        "model": job.model,
        "prompt": "" if prompt is None else prompt.words,
        "dtype": "float8" if job.pipeline.float8 else str(job.pipeline.model.dtype),
        "face_detector": "" if job.cropped else str(job.pipeline.face_detector or ""),
        "cropped": job.cropped,
        "keep_level": job.keep_level,
    }
    if job.signer is not None:
        facts["signed with"] = job.signer.fingerprint
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _make_group(job: Job, group: list[_Ready]) -> list[tuple[_Ready, Exception | None]]:
    """Make clips that go together; one that cannot be written fails alone."""
    import av

    errors: dict[int, Exception] = {}
    writers = [_Writer(job, ready) for ready in group]

    def each(place: int, act: Callable[[], None]) -> None:
        try:
            act()
        except (UserError, OSError, av.FFmpegError) as error:
            errors[place] = error
            writers[place].give_up(error)

    try:
        with contextlib.closing(stream_together(job.pipeline, [r.wanted for r in group], job.rollout)) as made:
            for clips in made:
                for place, clip in enumerate(clips):
                    if clip is not None and place not in errors:
                        each(place, partial(writers[place].add, clip))
        for place, writer in enumerate(writers):
            if place not in errors:
                each(place, writer.finish)
    except BaseException as error:
        for writer in writers:
            writer.give_up(error)
        raise
    return [(ready, errors.get(place)) for place, ready in enumerate(group)]


class _Writer:
    """One clip's file; it is there when it is finished."""

    def __init__(self, job: Job, ready: _Ready) -> None:
        self._path, self._audio = safe_join(job.out, ready.item.out), ready.item.audio
        self._finished = None if job.signer is None else job.signer.sign
        self._stack, self._video = contextlib.ExitStack(), None

    def add(self, clip: GeneratedClip) -> None:
        if self._video is None:
            audio = self._stack.enter_context(AudioFile(self._audio))
            shape = np.asarray(clip.frames).shape[1:]
            writer = VideoWriter(self._path, shape, audio=audio, finished=self._finished)
            self._video = self._stack.enter_context(writer)
        for frame in clip.frames:
            self._video.add(frame)

    def finish(self) -> None:
        self._stack.close()

    def give_up(self, error: BaseException) -> None:
        """Leave no file; what is finished stays."""
        with contextlib.suppress(BaseException):
            self._stack.__exit__(type(error), error, error.__traceback__)
        self._stack = contextlib.ExitStack()
