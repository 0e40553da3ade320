"""Files as strangers have them: few frames a second, several tracks, channels that cancel, an end that is missing.

Clips of three corpora are put into such files and read as a build reads them.

Shape legend: T frames, H height, W width, C channels, N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from benchmarks.stages.seen import Seen
from benchmarks.stages.tables import Section, rate, table
from df_data.stages.decode import decode_clip, iter_segments
from df_data.stages.prepare import StageConfig, prepare_general
from df_data.stages.rejection import Rejected
from df_models.containers import FileCutOff
from df_models.errors import UserError
from df_models.time import FPS, SAMPLE_RATE, samples_for

CLIPS = 12
"""Of each corpus, at most."""
FRAMES = 75
RATES = (8, 10, 12, 15, 18, 20, 24, 25, 30)
LEAST_RATE = 20
"""`stages.min_source_fps`."""
SHARES = (0.95, 0.7, 0.4)
"""Of a file's bytes that are left of it."""
SAME_AUDIO = 0.9
"""Correlation from which what is decoded is the track that was meant; another's speech has less than 0.1."""
CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    "MP4, index at the end": ("mp4", {}),
    "MP4, index first": ("mp4", {"movflags": "faststart"}),
    "MP4, fragments": ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "MOV": ("mov", {}),
    "MKV": ("mkv", {}),
    "FLV": ("flv", {}),
    "MKV of unknown length": ("mkv", {"live": "1"}),
    "MPEG-TS": ("ts", {}),
}
"""By name: the file's ending and the muxer's options. The last two do not tell where they end."""


@dataclass(frozen=True)
class Track:
    """An audio track: float32 ``[C, N]`` at 16 kHz in FFmpeg's order of channels."""

    channels: np.ndarray
    layout: str = "mono"
    default: bool = False


@dataclass(frozen=True)
class Clip:
    """Images of 25 a second, uint8 ``[T, H, W, 3]``, and audio, float32 ``[N]``."""

    frames: np.ndarray
    wave: np.ndarray


def clips_of(seen: Sequence[Seen]) -> list[Clip]:
    """Return the first 3 s of some stretches."""
    chosen = [seen[round(i * (len(seen) - 1) / max(1, CLIPS - 1))] for i in range(CLIPS)] if len(seen) > CLIPS else seen
    return [
        Clip(one.frames[:FRAMES], one.wave[: samples_for(min(FRAMES, len(one.landmarks.points)))]) for one in chosen
    ]


def write(path: Path, images: np.ndarray, fps: int, tracks: Sequence[Track], options: dict[str, str]) -> None:
    """Write images at a rate and audio tracks, in order."""
    with av.open(str(path), "w", options=options) as container:
        video: Any = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "ultrafast"})
        video.height, video.width, video.pix_fmt = *images.shape[1:3], "yuv420p"
        streams = [_audio_stream(container, track) for track in tracks]
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for stream, track in zip(streams, tracks):
            _mux(container, stream, track)


def _audio_stream(container: Any, track: Track) -> Any:
    stream = container.add_stream("aac", rate=SAMPLE_RATE, layout=track.layout)
    stream.bit_rate = 64_000 * len(track.channels)
    stream.disposition = Disposition.default if track.default else Disposition(0)
    return stream


def _mux(container: Any, stream: Any, track: Track) -> None:
    for begin in range(0, track.channels.shape[1], 1024):
        piece = np.ascontiguousarray(track.channels[:, begin : begin + 1024], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=track.layout)
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, begin, Fraction(1, SAMPLE_RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def remux(source: Path, target: Path, options: dict[str, str]) -> None:
    """Copy a file's streams into another container."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)


def rate_rows(clips: Sequence[Clip], name: str, folder: Path) -> list[list[str]]:
    """Take clips of other rates through the stages of general video, which look at rate and cuts alone."""
    rows = []
    for fps in RATES:
        refused = []
        for clip in clips:
            times = np.arange(int(len(clip.frames) * fps / FPS)) / fps
            write(folder / "rate.mp4", clip.frames[np.rint(times * FPS).astype(int)], fps, (), {})
            ends = list(prepare_general(folder / "rate.mp4", StageConfig(size=64)))
            refused.append(any(isinstance(end, Rejected) and end.reason == "frame_rate_too_low" for end in ends))
        told = "yes" if fps < LEAST_RATE else "no"
        rows.append([f"{fps}", name, str(len(clips)), told, rate(sum(refused), len(refused))])
    return rows


def track_rows(clips: Sequence[Clip], name: str, folder: Path) -> list[list[str]]:
    """Count files whose own speech is what is decoded, by how the tracks lie in them."""
    kinds: dict[str, list[bool]] = {}
    for clip, other in zip(clips, [*clips[1:], clips[0]]):
        own, strange = Track(clip.wave[None], default=True), Track(other.wave[None])
        centre = np.zeros((6, len(clip.wave)), np.float32)
        centre[2] = clip.wave  # FL FR FC LFE SL SR
        cases = {
            "another's speech first, the own is the default": ([strange, own], "mkv"),
            "the own first and default, another's speech after it": ([own, strange], "mkv"),
            "5.1, speech in the centre": ([Track(centre, "5.1(side)")], "mp4"),
            "stereo, speech on the left alone": ([Track(np.stack([clip.wave, 0 * clip.wave]), "stereo")], "mp4"),
        }
        for kind, (tracks, suffix) in cases.items():
            path = folder / f"tracks.{suffix}"
            write(path, clip.frames, FPS, tracks, {})
            kinds.setdefault(kind, []).append(_same(decode_clip(path).wave, clip.wave))
    return [[kind, name, str(len(right)), rate(sum(right), len(right))] for kind, right in kinds.items()]


def _same(found_N: np.ndarray, meant_N: np.ndarray) -> bool:
    count = min(len(found_N), len(meant_N))
    return bool(np.corrcoef(found_N[:count], meant_N[:count])[0, 1] > SAME_AUDIO)


def channel_rows(clips: Sequence[Clip], name: str, folder: Path) -> list[list[str]]:
    """Count stereo files that are told as antiphase, of such and of others; and how loud 5.1 comes out."""
    kinds: dict[str, list[bool]] = {}
    loud = []
    rng = np.random.default_rng(0)
    for clip in clips:
        hiss = (0.03 * clip.wave.std() * rng.standard_normal((2, len(clip.wave)))).astype(np.float32)
        pairs = {
            "one channel is the other upside down": np.stack([clip.wave, -clip.wave]),
            "the same, noise of its own in each, 30 dB below": np.stack([clip.wave, -clip.wave]) + hiss,
            "both alike": np.stack([clip.wave, clip.wave]),
            "speech on the left alone": np.stack([clip.wave, 0 * clip.wave]),
            "both alike, with such noise": np.stack([clip.wave, clip.wave]) + hiss,
        }
        for kind, pair in pairs.items():
            write(folder / "pair.mp4", clip.frames, FPS, [Track(pair, "stereo")], {})
            kinds.setdefault(kind, []).append(decode_clip(folder / "pair.mp4").antiphase)
        centre = np.zeros((6, len(clip.wave)), np.float32)
        centre[2] = clip.wave
        write(folder / "round.mp4", clip.frames, FPS, [Track(centre, "5.1(side)")], {})
        loud.append(20 * np.log10(decode_clip(folder / "round.mp4").wave.std() / clip.wave.std()))
    rows = [
        [
            kind,
            name,
            str(len(told)),
            "yes" if "upside" in kind or "the same" in kind else "no",
            rate(sum(told), len(told)),
        ]
        for kind, told in kinds.items()
    ]
    return [
        *rows,
        ["5.1, speech in the centre: level against mono", name, str(len(loud)), "-", f"{np.median(loud):+.1f} dB"],
    ]


def end_of(path: Path) -> str:
    """Return how reading a file ends: ``told`` as truncated, ``failed`` otherwise, or ``taken`` as it is."""
    try:
        list(iter_segments(path, min_seconds=0.2))
    except FileCutOff:
        return "told"
    except (UserError, Rejected):
        return "failed"
    return "taken"


def truncated_rows(clips: Sequence[Clip], name: str, folder: Path) -> list[list[str]]:
    """Cut files off and count how reading them ends, by container."""
    ends: dict[tuple[str, bool], list[str]] = {}
    for clip in clips:
        write(folder / "made.mp4", clip.frames, FPS, [Track(clip.wave[None])], {})
        for kind, (suffix, options) in CONTAINERS.items():
            whole, cut = folder / f"whole.{suffix}", folder / f"cut.{suffix}"
            remux(folder / "made.mp4", whole, options)
            ends.setdefault((kind, True), []).append(end_of(whole))
            for share in SHARES:
                cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
                ends.setdefault((kind, False), []).append(end_of(cut))
    rows = []
    for (kind, whole), found in ends.items():
        shares = [rate(found.count(end), len(found)) for end in ("told", "failed", "taken")]
        rows.append([f"{kind}, {'whole' if whole else 'cut off'}", name, str(len(found)), *shares])
    return rows


def measure(corpora: Mapping[str, Sequence[Seen]], folder: Path) -> Section:
    """Make and read every file."""
    rates, tracks, channels, ends = [], [], [], []
    for name, seen in corpora.items():
        clips = clips_of(seen)
        rates += rate_rows(clips, name, folder)
        tracks += track_rows(clips, name, folder)
        channels += channel_rows(clips, name, folder)
        ends += truncated_rows(clips, name, folder)
    ends.sort(key=lambda row: list(CONTAINERS).index(row[0].rsplit(",", 1)[0]))
    left = ", ".join(f"{share:.0%}" for share in SHARES)
    text = (
        "The first 3 s of clips, put into other files. Nothing here was chosen on clips, so all people are counted. "
        f"Rates (`stages.min_source_fps` {LEAST_RATE}, `frame_rate_too_low`):\n\n"
        + table(("frames a second", "clips of", "clips", "to be refused", "refused"), rates)
        + f"\n\nWhich audio is decoded (its correlation with the own speech is above {SAME_AUDIO}):\n\n"
        + table(("tracks", "clips of", "files", "the own speech"), tracks)
        + "\n\nChannels (`antiphase_sound`). A plain mean of six channels would have -15.6 dB:\n\n"
        + table(("channels", "clips of", "files", "to be told", "told"), channels)
        + f"\n\nFiles of which {left} of the bytes are left. Transport streams and MKV of unknown length do "
        "not tell where they end, so they are taken as far as they go:\n\n"
        + table(("file", "clips of", "files", "told as truncated", "failed otherwise", "taken"), ends)
    )
    figures = {"rates": rates, "tracks": tracks, "channels": channels, "ends": ends}
    return Section("Rates, tracks and missing ends", text, figures)
