"""The synthetic corpus as shards: rendered in worker processes, encoded here, staged, joined; resumes after a kill.

Shape legend: P pixel frames, S pixels a side, K truths.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from df_data.build.encode import Encoders, encode_images, mp4_bytes
from df_data.common.processes import one_thread, worker_pool
from df_data.format.fingerprint import fingerprints
from df_data.format.ledger import LEDGER_NAME, Ledger, LedgerEntry, staged_samples
from df_data.format.manifest import MANIFEST_NAME, read_manifest
from df_data.format.sample import Sample, SampleMeta
from df_data.format.shards import SplitWriter, num_shards_for, staged_shards
from df_data.synth.clip import IDENTITIES, SynthClip, make_clip
from df_data.synth.config import SynthConfig
from df_data.synth.recorded import CONFIG, begun_with_fewer, refuse_other_config
from df_data.synth.seeding import rng_for
from df_data.synth.speech.sentences import SPLITS, Split
from df_models.encoders import load_audio_encoder
from df_models.errors import UserError
from df_models.files import atomic_write, check_output_directory
from df_models.locks import one_writer
from df_models.media.levels import speech_level
from df_models.settings import dump_config

GENERATOR = "3"
"""Raised when a clip of the same seed changes: a corpus half made by the old generator is then refused."""

ENCODE_FRAMES = 16 * 33
"""Pixel frames that are encoded together."""

_WARM_UP_ROUNDS = 8
"""Of one clip per process; a process that got none in all of them starts during the trial."""
_TRIAL_CLIPS = 24
"""Clips that a trial times: some seconds of work on two slow cores, and long enough that starting it hardly counts."""


@dataclass(frozen=True)
class _Job:
    """One clip to render."""

    key: str
    seed: int
    identity: int
    frames: int
    size: int
    split: Split
    audio_encoder: str
    video: bool
    in_both: bool = False


@dataclass(frozen=True)
class _Rendered:
    """What a worker hands back: the clip, its audio features and, if kept, its mp4."""

    clip: SynthClip
    audio: Tensor
    video: bytes | None


Fit = Callable[[float], int]
"""How many training clips to make, from the seconds that one takes on this machine."""


def build_corpus(config: SynthConfig, out_dir: Path | str, progress: bool = True, fit: Fit | None = None) -> Path:
    """Make the corpus in `out_dir` (``train/``, ``val/``, ``ledger.jsonl``, ``config.yaml``), or go on with it.

    A corpus that is whole and of the same configuration is left as it is.

    Args:
        fit: is asked, after a few clips on trial, how many training clips to make, at most ``config.clips``. A corpus
            that was begun with fewer keeps its number and asks nobody. What came of it is told by
            :func:`df_data.synth.recorded.corpus_config`.

    Raises:
        UserError: the directory holds another dataset or is in use, or an encoder is missing.
    """
    out = Path(out_dir)
    if fit is not None and (begun := begun_with_fewer(config, out)) is not None:
        config, fit = begun, None
    if is_complete(config, out):
        return out
    check_output_directory(out)
    encoders = Encoders.load(config.video_vae, config.audio_encoder, config.reference_encoder)
    with one_writer(out, "df-data synth"), _renderers(config.workers) as pool, _one_thread():
        refuse_other_config(config, out, fitted=fit is not None)
        if progress:
            tqdm.write(
                f"starting {config.workers} rendering processes; their first start on a machine also compiles the "
                "renderer, which takes about half a minute"
            )
        if fit is not None and not (out / LEDGER_NAME).exists():
            clips = fit(seconds_per_clip(config, pool, encoders))
            config = config.model_copy(update={"clips": min(config.clips, max(1, clips))})
        _make(config, out, pool, encoders, progress)
    return out


def _make(config: SynthConfig, out: Path, pool: ProcessPoolExecutor, encoders: Encoders, progress: bool) -> None:
    made_by, *older = fingerprint(config, out, {role: record.sha256 for role, record in encoders.records().items()})
    writers = {
        split: SplitWriter(
            out,
            split,
            num_shards=num_shards_for(config.count(split), config.clips_per_shard),
            build=made_by,
            older=older,
            encoders=encoders.records(),
        )
        for split in SPLITS
    }
    atomic_write(out / CONFIG, dump_config(config))
    ledger = Ledger(out / LEDGER_NAME)
    for split in SPLITS:
        _make_split(config, split, pool, encoders, ledger, writers[split], progress)
    for split, writer in writers.items():
        staged = staged_samples(ledger.entries.values(), split)
        for shard in staged_shards(staged):
            writer.finish_shard(shard, staged)
        writer.finish()


def seconds_per_clip(config: SynthConfig, pool: ProcessPoolExecutor, encoders: Encoders) -> float:
    """Return how long a training clip takes, rendered in the pool and encoded here at the same time; keeps none.

    The first clips wait for the processes to start, and for the renderer's compiler, and are not counted.
    """
    trial = jobs_of(config.model_copy(update={"clips": _TRIAL_CLIPS}), "train")
    ready: set[int] = set()
    for _ in range(_WARM_UP_ROUNDS):
        ready |= set(pool.map(_warm_up, itertools.islice(itertools.cycle(trial), config.workers)))
        if len(ready) >= config.workers:
            break
    began = time.monotonic()
    together = max(1, _TRIAL_CLIPS // 2)
    rendered = _rendered(pool, trial, len(trial))
    while group := list(itertools.islice(rendered, together)):
        _encode(config, group, encoders)
    return (time.monotonic() - began) / len(trial)


def is_complete(config: SynthConfig, out: Path) -> bool:
    """Return whether `out` holds this very corpus, whole.

    Raises:
        UserError: it was whole, but a shard is missing or cut short now.
    """
    if not all((out / split / MANIFEST_NAME).is_file() for split in SPLITS):
        return False
    manifests = [read_manifest(out / split) for split in SPLITS]
    hashes = {role: record.sha256 for role, record in manifests[0].encoders.items()}
    mine = fingerprint(config, out, hashes)
    if not all(manifest.complete and manifest.build in mine for manifest in manifests):
        return False
    for split, manifest in zip(SPLITS, manifests):
        for shard in manifest.shards:
            path = out / split / shard.name
            if not path.is_file() or path.stat().st_size != shard.bytes:
                raise UserError(f"{path} was removed or damaged; delete {out} to have the corpus made again")
    return True


def fingerprint(config: SynthConfig, out: Path, encoder_hashes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the hash of everything that decides the corpus.

    After it comes that of a program that did not know all settings (:mod:`df_data.format.fingerprint`).
    """

    def made_by(settings: dict[str, Any]) -> dict[str, Any]:
        return {"generator": GENERATOR, "config": settings, "encoders": dict(sorted(encoder_hashes.items()))}

    return fingerprints(config, {"workers"}, out, made_by)


def jobs_of(config: SynthConfig, split: Split) -> list[_Job]:
    """The clips of a split; clip i is the same whatever the number of clips is."""
    first = IDENTITIES[split].start
    offset = config.seed * 100_003 % (len(IDENTITIES[split]) // 2)
    frames = config.frames if split == "train" else config.val_frames
    return [
        _Job(
            key=f"{split}-{config.seed}-{index:06d}",
            seed=config.seed * 10_000_019 + index + (0 if split == "train" else 5_000_000),
            identity=first + (offset + index // config.clips_per_identity) % len(IDENTITIES[split])
            if config.person is None
            else config.person,
            frames=frames,
            size=config.size,
            split=split,
            audio_encoder=config.audio_encoder,
            video=split == "val" or config.keep_train_video,
            in_both=config.person is not None,
        )
        for index in range(config.count(split))
    ]


def _make_split(
    config: SynthConfig,
    split: Split,
    pool: ProcessPoolExecutor,
    encoders: Encoders,
    ledger: Ledger,
    writer: SplitWriter,
    progress: bool,
) -> None:
    """Clips are encoded in fixed groups (a group is done again as a whole), since the last bits depend on the batch."""
    jobs = jobs_of(config, split)
    together = max(1, ENCODE_FRAMES // jobs[0].frames)
    groups = [jobs[start : start + together] for start in range(0, len(jobs), together)]
    todo = [group for group in groups if not all(_is_done(job, ledger, writer) for job in group)]
    waiting = sum(map(len, todo))
    if not waiting:
        return
    rendered = _rendered(pool, itertools.chain.from_iterable(todo), 4 * config.workers + together)
    name = f"{split} clips"
    with tqdm(total=len(jobs), initial=len(jobs) - waiting, desc=name, unit="clip", disable=not progress) as bar:
        for group in todo:
            _store(config, list(itertools.islice(rendered, len(group))), encoders, ledger, writer)
            bar.update(len(group))


def _is_done(job: _Job, ledger: Ledger, writer: SplitWriter) -> bool:
    entry = ledger.get(job.key)
    return entry is not None and all(writer.has(staged) for staged in entry.samples)


def _rendered(pool: ProcessPoolExecutor, jobs: Iterable[_Job], ahead: int) -> Iterator[tuple[_Job, _Rendered]]:
    """Render in the pool, in order, at most `ahead` clips waiting to be taken."""
    waiting: deque[tuple[_Job, Future[_Rendered]]] = deque()
    for job in jobs:
        waiting.append((job, pool.submit(_render, job)))
        if len(waiting) >= ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Encode on one thread: the renderers have the other cores, and the last bits do not depend on the machine's."""
    give_back = one_thread()
    try:
        yield
    finally:
        give_back()


@contextlib.contextmanager
def _renderers(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of rendering processes."""
    try:
        with worker_pool(workers) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise UserError(
            "a rendering process died (out of memory?); run the command again to go on, with workers=1 if it recurs"
        ) from error


def _render(job: _Job) -> _Rendered:
    clip = make_clip(job.seed, job.identity, job.frames, job.size, split=job.split, in_both=job.in_both)
    audio = load_audio_encoder(job.audio_encoder).encode(clip.wave, job.frames).half()
    video = mp4_bytes(clip.frames, clip.wave, lossless=True) if job.video else None
    return _Rendered(clip, audio, video)


def _warm_up(job: _Job) -> int:
    """Render once and return the number of the process that did."""
    _render(job)
    return os.getpid()


def _store(
    config: SynthConfig, batch: list[tuple[_Job, _Rendered]], encoders: Encoders, ledger: Ledger, writer: SplitWriter
) -> None:
    entries = []
    for (job, rendered), tensors in zip(batch, _encode(config, batch, encoders)):
        sample = sample_of(job.key, config.seed, rendered.clip, rendered.audio, tensors, rendered.video, encoders)
        entries.append(LedgerEntry(input=job.key, status="accepted", split=job.split, samples=(writer.stage(sample),)))
    ledger.record(*entries)


def _encode(config: SynthConfig, batch: list[tuple[_Job, _Rendered]], encoders: Encoders) -> list[dict[str, Tensor]]:
    references = [reference_frames(job.seed, job.frames, config.references) for job, _ in batch]
    return encode_images(encoders, [rendered.clip.frames for _, rendered in batch], references)


def reference_frames(seed: int, num_frames: int, count: int) -> list[int]:
    """Pixel frames of the reference images: frame 0, and `count - 1` more at seeded random places."""
    count = min(count, num_frames)
    others = rng_for("references", seed).choice(np.arange(1, num_frames), count - 1, replace=False)
    return [0, *sorted(int(frame) for frame in others)]


def sample_of(
    key: str,
    seed: int,
    clip: SynthClip,
    audio: Tensor,
    images: Mapping[str, Tensor],
    video: bytes | None,
    encoders: Encoders,
) -> Sample:
    """Put a rendered and encoded clip into the form of a shard."""
    names = tuple(clip.truth)
    tensors = {
        **images,
        "structure": torch.from_numpy(clip.structure),
        "flame": torch.from_numpy(clip.flame),
        "audio": audio,
        "mouth_boxes": torch.from_numpy(clip.mouth_boxes),
        "truth": torch.from_numpy(np.stack([clip.truth[name] for name in names], axis=1)),
        "identity_vector": torch.from_numpy(clip.identity_vector),
    }
    frames, height, width = clip.frames.shape[:3]
    meta = SampleMeta(
        key=key,
        source="synth",
        licence="Apache-2.0",
        identity=f"synth-{clip.identity}",
        split=clip.split,
        num_frames=frames,
        height=height,
        width=width,
        encoders=encoders.records(),
        text=clip.text,
        phonemes=tuple((symbol, round(start, 4), round(end, 4)) for symbol, start, end in clip.phonemes),
        truth_names=names,
        scores=speech_level(clip.wave).scores(),
        provenance={"generator": GENERATOR, "seed": seed, "identity": clip.identity, "sentence": clip.sentence_seed},
    )
    return Sample(meta, tensors, video)
