"""Whether a live session keeps up: speech is pushed by the clock, in pieces of 20 ms, and every chunk has a deadline.

A chunk is due when the last sound that it waits for is pushed. It is shown one chunk later (one chunk is buffered), so
it is late if it is made more than its own duration after it was due, and the viewer then sees a stall. The wall clock
counts: only a machine that does nothing else gives figures worth keeping. With a run, its model and settings are used;
without, the quickstart with random weights (the arithmetic is the same) and its sampling.

The same speech is spoken over and over. Of a run on rendered people, the exact reader compares its last repetition with
its second one: identity to the portrait (last over second), and by how many frames the mouth comes later (40 ms each).

    uv run python benchmarks/session.py --run runs/quickstart --seconds 60 --threads 2
    uv run python benchmarks/session.py --run runs/quickstart --seconds 1800 --threads 2      # a soak
    uv run python benchmarks/session.py --run runs/quickstart --seconds 30 --sessions 2       # two on one model
    uv run python benchmarks/session.py --sessions 4 --seconds 30 --cost                # what a batch costs, no clock
    uv run python benchmarks/session.py --seconds 30 --heavy 40          # beside one whose chunks take 40 steps each

Of several sessions each is shown twice: with its chunks made one after the other, and with those that are due together
in one batch. Before that, in the same process, what a batch costs: chunks of 1, 2, .. sessions made together, by the
clock that counts (on a CPU this process's own time), as shares of one chunk alone. ``--cost`` stops there: that figure
bears a machine that does other things as well.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import DTYPES, add_common_arguments, clock, resolve, table, write_result

from df_data.format.manifest import SYNTHETIC
from df_eval.metrics.identity import identity_distance
from df_eval.metrics.sync import best_lag
from df_eval.reading.readers import SyntheticFaceReader
from df_infer import Pipeline, Session
from df_infer.config import RolloutConfig
from df_infer.live.session import Segment
from df_infer.sampling.steps import together as run_together
from df_infer.serve.engine import AFTER_S, Engine
from df_infer.serve.house import PAGE
from df_models import DualForce
from df_models.encoders import load_audio_encoder, load_reference_encoder, load_video_vae
from df_models.errors import UserError
from df_models.media import read_audio, read_image
from df_models.settings import read_tree
from df_models.time import FPS, SAMPLE_RATE, TEMPORAL_STRIDE

PIECE = SAMPLE_RATE // 50
PIXEL_FRAME = SAMPLE_RATE // FPS
QUICKSTART = RolloutConfig(**read_tree(Path(__file__).parents[1] / "configs" / "train" / "quickstart.yaml")["rollout"])
SOAK_S = 600
"""Seconds from which the result is called a soak."""
WARM = 8
"""First chunks that are left out of the cadence: kernels are chosen and buffers grow in them."""


TURNS = 24
"""Chunks of each size in the table of costs."""


class Repetitions:
    """The pictures of the sound's second and of its latest whole repetition; no others, however long it lasts.

    Args:
        period: pixel frames of the sound.
    """

    def __init__(self, period: int) -> None:
        self._period = period
        self._kept: dict[int, list[np.ndarray]] = {}

    def add(self, frame: int, frames_THWC: np.ndarray) -> None:
        """Take the pictures from pixel frame ``frame`` on."""
        for number, picture in enumerate(frames_THWC, start=frame):
            self._kept.setdefault(number // self._period, []).append(picture)
        latest = max(self._kept)
        self._kept = {at: pictures for at, pictures in self._kept.items() if at == 1 or at >= latest - 1}

    def compared(self, portrait_HWC: np.ndarray) -> dict[str, float]:
        """Identity ratio and the mouth's lag between the two; nothing if there are no two."""
        whole = [np.stack(self._kept[at]) for at in sorted(self._kept) if len(self._kept[at]) == self._period]
        if len(whole) < 2:
            return {}
        reader = SyntheticFaceReader()
        portrait, second, last = (reader.read(of) for of in (portrait_HWC[None], whole[0], whole[-1]))
        person, before, after = (of.identity_TD for of in (portrait, second, last))
        mouths = [of.mouth_open_T for of in (second, last)]
        assert person is not None and before is not None and after is not None
        assert mouths[0] is not None and mouths[1] is not None
        distances = [float(np.nanmean(identity_distance(of, person[0]))) for of in (before, after)]
        lag, correlation = best_lag(mouths[1], mouths[0])
        return {
            "identity_ratio": distances[1] / distances[0],
            "mouth_lag_frames": lag.value if lag.value is not None else float("nan"),
            "mouth_correlation": correlation.value if correlation.value is not None else float("nan"),
        }


class Chunk(NamedTuple):
    """Seconds from the session's start: when a chunk was due and when it was made; frames that it has; memory then."""

    due: float
    made: float
    frames: int
    memory: int


def opened(args: argparse.Namespace, device: torch.device) -> Pipeline:
    """The run's pipeline, or one of random weights."""
    dtype = DTYPES[args.dtype] if args.dtype else None
    if args.run is not None:
        pipeline = Pipeline.from_run(args.run, str(device), args.dtype or "auto", compiled=args.compile)
    else:
        torch.manual_seed(0)
        model = DualForce.from_preset(args.preset).to(device, dtype).eval()
        model.join_products()
        encoders = load_audio_encoder("logmel"), load_reference_encoder(model.config.reference_encoder)
        pipeline = Pipeline(model, load_video_vae(model.config.video_vae).to(device), *encoders, QUICKSTART)
        if args.compile:
            model.compile_step()
    return pipeline


def spoken(
    session: Session,
    wave_N: np.ndarray,
    seconds: float,
    engine: Engine | None = None,
    seen: Repetitions | None = None,
    after_s: float = 0.0,
) -> list[Chunk]:
    """Push the sound by the clock, over and over, and make each chunk as soon as it is due.

    Several sessions have an engine, as in `df-infer serve`: one thread computes, what must be seen first comes first,
    and with it what else waits.
    """
    chunks, pushed, began = [], 0, time.perf_counter()
    while pushed < seconds * SAMPLE_RATE and time.perf_counter() < began + seconds:
        ahead = pushed / SAMPLE_RATE - (time.perf_counter() - began)
        if ahead > 0:
            time.sleep(ahead)
        while pushed / SAMPLE_RATE <= time.perf_counter() - began and not session.due:
            session.push(np.take(wave_N, range(pushed, pushed + PIECE), mode="wrap"))
            pushed += PIECE
        if session.due:
            seen_by = time.monotonic() + TEMPORAL_STRIDE / FPS + after_s
            segment = session.make() if engine is None else engine.submit_steps(seen_by, session.steps).result()
            assert segment is not None
            if seen is not None:
                seen.add(segment.frame, segment.frames)
            needed = (segment.frame + len(segment.frames)) / FPS + session.latency_s - len(segment.frames) / FPS
            needed = needed if segment.frame else session.latency_s - 3 / FPS
            chunks.append(Chunk(needed, time.perf_counter() - began, len(segment.frames), resident()))
    return chunks


def resident() -> int:
    """Bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main() -> None:
    """Run the session and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--run", type=Path, help="run directory (default: the preset, random weights)")
    parser.add_argument("--image", type=Path, help="the portrait (default: the rendered person of the server's page)")
    parser.add_argument("--audio", type=Path, default=Path("examples/speech.wav"), help="what is spoken, over and over")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--sessions", type=int, default=1, help="sessions at once (default: 1)")
    parser.add_argument("--heavy", type=int, metavar="STEPS", help="one more session, with so many solver steps")
    parser.add_argument("--compile", action="store_true", help="compile the model's step")
    parser.add_argument("--cost", action="store_true", help="of several sessions, only what a batch of them costs")
    args = parser.parse_args()
    if args.cost and args.sessions < 2:
        raise UserError("--cost compares a batch with one session; give --sessions 2 or more")
    device, _ = resolve(args)
    pipeline = opened(args, device)
    with resources.as_file(PAGE / "face.png") as own:
        image = pipeline.portrait(read_image(args.image or own))
    wave = read_audio(args.audio)
    wave = wave[: len(wave) // PIXEL_FRAME * PIXEL_FRAME]
    spoken(Session(pipeline, image, cropped=True), wave, 3.0)
    figures, parts = {}, []
    if args.sessions > 1:
        figures["cost"] = cost(pipeline, image, wave, args.sessions, device)
        parts.append(cost_table(figures["cost"]))
    several = args.sessions + (args.heavy is not None)
    ways = (1,) if several == 1 else (1, several)
    for together in () if args.cost else ways:
        found = by_the_clock(args, pipeline, image, wave, together)
        figures |= found[0] if several == 1 else {f"sessions, {together} in a batch": found}
        parts.append(session_table(found, together))
    name = "soak" if args.seconds >= SOAK_S else "session"
    name += f"s-{args.sessions}" * (args.sessions > 1) + f"-beside-{args.heavy}-steps" * (args.heavy is not None)
    name += "-cost" * args.cost + "-compiled" * args.compile
    text = "\n\n".join(parts)
    print(f"wrote {write_result(args.out, name, args, device, figures, text)}\n\n{text}")


def by_the_clock(
    args: argparse.Namespace, pipeline: Pipeline, image: np.ndarray, wave: np.ndarray, together: int
) -> list[dict[str, float]]:
    """The figures of each session, all at once, with so many chunks in a batch at most."""
    sessions = [Session(pipeline, image, cropped=True, seed=seed) for seed in range(args.sessions)]
    if args.heavy is not None:
        more = pipeline.rollout.model_copy(update={"steps": args.heavy})
        sessions.append(Session(pipeline, image, cropped=True, seed=args.sessions, rollout=more))
    after = [0.0] * args.sessions + [AFTER_S] * (args.heavy is not None)  # as the server has it
    engine = Engine(together) if len(sessions) > 1 else None
    with ThreadPoolExecutor(len(sessions)) as threads:
        seen = [Repetitions(len(wave) // PIXEL_FRAME) for _ in sessions]
        of_each = sessions, seen, after
        each = list(threads.map(lambda *of: spoken(of[0], wave, args.seconds, engine, *of[1:]), *of_each))
    if engine is not None:
        engine.stop()
    found = [summary(chunks) | told(chunks, session) for chunks, session in zip(each, sessions)]
    layout = pipeline.model.config.structure_layout
    if args.run is not None and layout is not None and layout.encoder == SYNTHETIC:
        found = [of | kept.compared(image) for of, kept in zip(found, seen)]
    return found


def cost(
    pipeline: Pipeline, image: np.ndarray, wave: np.ndarray, most: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """What chunks of several sessions cost together, and one after the other, in shares of one chunk alone.

    Sessions are as far apart as people are who came at other times. All sizes take turns, so that what else the machine
    does meets them alike; medians of the turns.
    """
    sizes = sorted({1, 2, most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})
    sessions = [Session(pipeline, image, cropped=True, seed=seed) for seed in range(most)]
    piece = np.resize(wave, PIXEL_FRAME * TEMPORAL_STRIDE * (WARM + TURNS * (1 + len(sizes))) * 2)
    for place, session in enumerate(sessions):
        session.push(piece)
        for _ in range(WARM + place):
            session.make()
    taken: dict[tuple[str, int], list[float]] = {}
    for _ in range(TURNS):
        for size in sizes:
            began = clock(device)
            made = dict(run_together([session.steps() for session in sessions[:size]]))
            taken.setdefault(("together", size), []).append(clock(device) - began)
            assert all(isinstance(made[place], Segment) for place in range(size)), made
        began = clock(device)
        for session in sessions:
            assert session.make() is not None
        taken.setdefault(("one after the other", most), []).append(clock(device) - began)
    one = float(np.median(taken["together", 1]))
    shares: dict[str, dict[str, float]] = {}
    for (way, size), seconds in taken.items():
        shares.setdefault(way, {})[str(size)] = float(np.median(seconds)) / one
    return shares


def cost_table(shares: dict[str, dict[str, float]]) -> str:
    """What a batch costs, as Markdown."""
    rows = [(size, way, f"{share:.2f}") for way, of in shares.items() for size, share in of.items()]
    return "A chunk of each, decoding included:\n\n" + table(("sessions", "made", "cost, of one chunk alone"), rows)


def session_table(found: list[dict[str, float]], together: int) -> str:
    """The sessions' figures as Markdown."""
    head = ("", *(f"session {index + 1}" if len(found) > 1 else "" for index in range(len(found))))
    names = dict.fromkeys(name for of in found for name in of)
    cells = [[f"{of[name]:.4g}" if name in of else "–" for of in found] for name in names]
    text = table(head, [(name.replace("_", " "), *row) for name, row in zip(names, cells)])
    if len(found) == 1:
        return text
    way = "one after the other" if together == 1 else f"up to {together} in a batch, where they are due together"
    return f"Chunks made {way}:\n\n{text}"


def told(chunks: list[Chunk], session: Session) -> dict[str, float]:
    """Video made per second, when the first frame was there, how long it waits for sound, what the session holds."""
    return {
        "made_per_second": sum(chunk.frames for chunk in chunks) / FPS / chunks[-1].made,
        "first_frame_s": chunks[0].made,
        "waits_for_sound_s": session.latency_s,
        "session_bytes": session.bytes,
    }


def summary(chunks: list[Chunk]) -> dict[str, float]:
    """The figures of a session's chunks, the first left out; how many there are, where that is all."""
    warm = chunks[WARM:]
    if not warm:
        return {"chunks": 0}
    seconds = np.array([chunk.frames / FPS for chunk in warm])
    late = np.array([chunk.made - chunk.due for chunk in warm])
    between = np.diff([chunk.made for chunk in warm])
    tenth = max(1, len(warm) // 10)
    memory = [chunk.memory for chunk in warm]
    growth = np.mean(memory[-tenth:]) / np.mean(memory[tenth : 2 * tenth]) - 1
    return {
        "chunks": len(warm),
        "in_time": float(np.mean(late <= seconds)),
        "compute_median_share_of_chunk": float(np.median(late / seconds)),
        "compute_p99_share_of_chunk": float(np.quantile(late / seconds, 0.99)),
        "between_p99_of_median": float(np.quantile(between, 0.99) / np.median(between)),
        "memory_growth": float(growth),
    }


if __name__ == "__main__":
    main()
