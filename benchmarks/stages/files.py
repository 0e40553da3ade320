"""Video files whose time stamps, audio track and turn are chosen, as cameras and sites write them.

Shape legend: F images of the file, N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.stages.scene import Scene
from df_models.time import SAMPLE_RATE

Schedule = Literal["even", "jittered", "dropped", "slow then fast"]


@dataclass(frozen=True)
class FileFormat:
    """How a scene becomes a file.

    Attributes:
        name: for tables.
        fps: rate of the images, on average if the schedule is not even.
        schedule: ``jittered`` by up to 40 % of a frame, ``dropped``: three frames in ten are left out at random,
            ``slow then fast``: half the rate in the first half.
        start: time stamp of the first image in seconds.
        audio_delay: seconds by which the audio track begins after the first image (negative: before).
        audio_rate, channels: of the audio track.
        trimmed: images before time 0 that an edit list hides.
        b_frames: between two others, so images are not stored in their order.
        turn: degrees counter-clockwise that a player has to turn the stored images by.
        flipped: a player has to mirror the stored images left to right.
        suffix: of the file, which decides the container.
        codecs: of images and audio.
    """

    name: str
    fps: Fraction = Fraction(25)
    schedule: Schedule = "even"
    start: float = 0.0
    audio_delay: float = 0.0
    audio_rate: int = 44_100
    channels: int = 2
    trimmed: int = 0
    b_frames: int = 0
    turn: int = 0
    flipped: bool = False
    suffix: str = ".mp4"
    codecs: tuple[str, str] = ("libx264", "aac")

    def times(self, seconds: float, seed: int = 0) -> np.ndarray:
        """Return the seconds of the scene's video that the file's images show, float64 ``[F]``, the first at 0."""
        count = int(seconds * self.fps)
        steps = np.arange(-self.trimmed, count, dtype=np.float64)
        rng = np.random.default_rng([seed, count])
        if self.schedule == "jittered":
            steps[1:] += rng.uniform(-0.4, 0.4, len(steps) - 1)
        elif self.schedule == "dropped":
            kept = rng.random(len(steps)) >= 0.3
            kept[0] = True
            steps = steps[kept]
        elif self.schedule == "slow then fast":
            steps = steps[(steps >= count / 2) | (steps % 2 == 0)]
        return steps / float(self.fps)


FORMATS = (
    FileFormat("25 fps"),
    FileFormat("24 fps", Fraction(24)),
    FileFormat("29.97 fps", Fraction(30000, 1001), audio_rate=48_000),
    FileFormat("30 fps", Fraction(30)),
    FileFormat("50 fps", Fraction(50), audio_rate=48_000),
    FileFormat("59.94 fps", Fraction(60000, 1001)),
    FileFormat("30 fps, jittered stamps", Fraction(30), "jittered"),
    FileFormat("30 fps, 3 of 10 frames dropped", Fraction(30), "dropped"),
    FileFormat("30 fps, 15 in the first half", Fraction(30), "slow then fast"),
    FileFormat("25 fps, begins at 7.3 s", start=7.3),
    FileFormat("25 fps, audio begins 0.12 s later", audio_delay=0.12),
    FileFormat("25 fps, audio begins 0.25 s earlier", start=1.0, audio_delay=-0.25),
    FileFormat("25 fps, edit list hides 6 frames", trimmed=6, b_frames=2),
    FileFormat("25 fps, 3 B-frames", b_frames=3),
    FileFormat("25 fps, 16 kHz mono", audio_rate=16_000, channels=1),
    FileFormat("29.97 fps, MPEG-TS, MPEG-2 and MP2", Fraction(30000, 1001), suffix=".ts", codecs=("mpeg2video", "mp2"),
               audio_rate=48_000, b_frames=2),
    FileFormat("30 fps, WebM, VP9 and Opus", Fraction(30), suffix=".webm", codecs=("libvpx-vp9", "libopus"),
               audio_rate=48_000),
    FileFormat("24 fps, Matroska, H.264 and PCM", Fraction(24), suffix=".mkv", codecs=("libx264", "pcm_s16le")),
)  # fmt: skip
"""The files of the table of times."""


def write_file(path: Path, made: FileFormat, scene: Scene, images: Sequence[np.ndarray], times_F: np.ndarray) -> None:
    """Write a scene's images, shown at these seconds of its video, and its audio.

    The images are stored turned and mirrored so that a player that heeds the file's flags shows them as given.
    """
    import av

    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(made.codecs[0], rate=made.fps)
        stored = [_stored(image, made) for image in images]
        video.height, video.width = stored[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = 1 / made.fps if made.codecs[0] == "mpeg2video" else Fraction(1, 90_000)
        if made.codecs[0] == "libx264":
            video.options = {"crf": "14", "preset": "veryfast", "bf": str(made.b_frames)}
        elif made.codecs[0] == "mpeg2video":
            video.options = {"bf": str(made.b_frames), "qscale": "2"}
            video.bit_rate = 6_000_000
        else:
            video.options = {"crf": "20", "cpu-used": "8", "deadline": "realtime", "lag-in-frames": "0"}
        if made.turn or made.flipped:
            video.set_display_rotation(made.turn, hflip=made.flipped)
        audio: Any = container.add_stream(made.codecs[1], rate=made.audio_rate)
        audio.layout = "stereo" if made.channels == 2 else "mono"
        _mux_images(container, video, stored, made.start + times_F)
        _mux_audio(container, audio, scene, made)


def _stored(image_HWC: np.ndarray, made: FileFormat) -> np.ndarray:
    turned = image_HWC[:, ::-1] if made.flipped else image_HWC
    return np.ascontiguousarray(np.rot90(turned, -made.turn // 90))


def _mux_images(container: Any, stream: Any, images: Sequence[np.ndarray], stamps_F: np.ndarray) -> None:
    import av

    base = stream.codec_context.time_base
    for stamp, image in zip(stamps_F, images, strict=True):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.time_base, frame.pts = base, round(stamp / base)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _mux_audio(container: Any, stream: Any, scene: Scene, made: FileFormat) -> None:
    """Write the scene's audio from where the track begins to the video's end."""
    import av

    begin = made.audio_delay
    wave = scene.audio(begin, round((scene.seconds - begin) * SAMPLE_RATE))
    line = resample_exactly(wave, made.audio_rate)
    stream.codec_context.time_base = Fraction(1, made.audio_rate)
    first = round((made.start + begin) * made.audio_rate)
    kind = "s16" if made.codecs[1].startswith("pcm") or made.codecs[1] in ("mp2",) else "flt"
    samples = np.repeat(line[:, None], made.channels, axis=1).reshape(1, -1)
    if kind == "s16":
        samples = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=kind, layout=stream.layout.name)
    frame.sample_rate = made.audio_rate
    fifo = av.AudioFifo()
    fifo.write(frame)
    while (piece := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
        piece.pts, piece.time_base = first, Fraction(1, made.audio_rate)
        first += piece.samples
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def resample_exactly(wave_N: np.ndarray, rate: int) -> np.ndarray:
    """Resample 16 kHz audio by its Fourier series, without delay: another way than the stages' own, float32."""
    count = round(len(wave_N) * rate / SAMPLE_RATE)
    spectrum = np.fft.rfft(np.asarray(wave_N, dtype=np.float64))
    kept = np.zeros(count // 2 + 1, dtype=np.complex128)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    return (np.fft.irfft(kept, count) * count / len(wave_N)).astype(np.float32)
