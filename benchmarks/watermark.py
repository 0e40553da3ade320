"""What invisible watermarks of installable libraries survive: the right bits of 32, frame by frame.

Frames of a video are marked, written as df-infer writes them (x264, crf 16), and read again: as they are, encoded once
more, scaled to three quarters and back, or cut by four pixels on two sides. Half of the bits are ones, so whoever reads
always the same is right in half of them; what a reader makes of frames without a mark is a column of its own. The
libraries are asked for on the spot; they are no part of the project (docs/serving.md says why). `rivaGan` of
invisible-watermark needs onnxruntime, which the package does not ask for:

    uv run --with blind-watermark==0.4.4 --with invisible-watermark==0.2.0 --with onnxruntime \\
        uv run python benchmarks/watermark.py runs/quickstart/samples/step-950/clip-0.mp4

Shape legend: T frames, N bits.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from common import RESULTS, table, write_result

from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.files import check_output_directory
from df_models.media import read_video, write_video

BITS = np.random.default_rng(0).permutation(np.arange(32) % 2)
"""As many ones as zeros."""
CUT = 4


class Method(NamedTuple):
    """Puts :data:`BITS` into a frame uint8 ``[H, W, 3]``, and reads them from one ``[N]``."""

    mark: Callable[[np.ndarray], np.ndarray]
    read: Callable[[np.ndarray], np.ndarray]


def methods() -> dict[str, Method]:
    """Those of the libraries that are installed.

    Raises:
        UserError: none is.
    """
    found: dict[str, Method] = {}
    with contextlib.suppress(ModuleNotFoundError):
        blind = importlib.import_module("blind_watermark")
        blind.bw_notes.close()
        found["blind-watermark"] = Method(
            lambda frame: _blind(blind, frame, mark=True), lambda frame: _blind(blind, frame, mark=False)
        )
    with contextlib.suppress(ModuleNotFoundError):
        invisible = importlib.import_module("imwatermark")
        for kind in ("dwtDct", "dwtDctSvd", *_networks(invisible)):
            found[f"invisible-watermark, {kind}"] = Method(
                partial(_marked, invisible, kind), partial(_unmarked, invisible, kind)
            )
    if not found:
        raise UserError("no library is there; give --with blind-watermark to uv run")
    return found


def _bgr(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[:, :, ::-1])


def _blind(blind: Any, frame: np.ndarray, *, mark: bool) -> np.ndarray:
    marker = blind.WaterMark(password_img=1, password_wm=1)
    if not mark:
        return np.asarray(marker.extract(embed_img=_bgr(frame), wm_shape=len(BITS), mode="bit")) > 0.5
    marker.read_img(img=_bgr(frame))
    marker.read_wm([bool(bit) for bit in BITS], mode="bit")
    return _bgr(np.clip(np.round(marker.embed()), 0, 255).astype(np.uint8))


def _networks(invisible: Any) -> tuple[str, ...]:
    """The method that is a network, whose weights lie in the wheel; none without onnxruntime."""
    try:
        invisible.WatermarkEncoder.loadModel()
    except ImportError as error:
        print(f"without rivaGan: {error}")
        return ()
    return ("rivaGan",)


def _marked(invisible: Any, kind: str, frame: np.ndarray) -> np.ndarray:
    encoder = invisible.WatermarkEncoder()
    encoder.set_watermark("bits", [int(bit) for bit in BITS])
    return _bgr(encoder.encode(_bgr(frame), kind))


def _unmarked(invisible: Any, kind: str, frame: np.ndarray) -> np.ndarray:
    return np.asarray(invisible.WatermarkDecoder("bits", len(BITS)).decode(_bgr(frame), kind))


def encoded(frames_THWC: np.ndarray, folder: Path, crf: int = 16) -> np.ndarray:
    """Write frames as df-infer does, or at another quality, and read them."""
    write_video(folder / "video.mp4", iter(frames_THWC), crf=crf)
    return read_video(folder / "video.mp4")[0]


def resized(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a frame."""
    return cv2.resize(frame_HWC, (width, height), interpolation=cv2.INTER_AREA)


def survived(method: Method, frames_THWC: np.ndarray) -> list[str]:
    """One row of the table."""

    def right(frames: np.ndarray) -> str:
        return f"{np.mean([np.mean(method.read(frame) == BITS) for frame in frames]):.2f}"

    height, width = frames_THWC.shape[1:3]
    began = time.process_time()
    try:
        marked = np.stack([method.mark(frame) for frame in frames_THWC])
    except (RuntimeError, ValueError) as error:
        return [str(error), *["-"] * 8]
    took_ms = 1000 * (time.process_time() - began) / len(frames_THWC)
    noise_db = 10 * np.log10(255**2 / np.mean(np.square(marked.astype(float) - frames_THWC)))
    with tempfile.TemporaryDirectory() as name:
        written = encoded(marked, Path(name))
        again = [encoded(written, Path(name), crf=crf) for crf in (23, 30)]
    scaled = np.stack([resized(resized(f, height * 3 // 4, width * 3 // 4), height, width) for f in written])
    columns = [frames_THWC, marked, written, *again, scaled, written[:, CUT:, CUT:]]
    return [*(right(frames) for frames in columns), f"{noise_db:.1f}", f"{took_ms:.0f}"]


def main(argv: list[str]) -> int:
    """Measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+", help="videos whose first frames are marked")
    parser.add_argument("--frames", type=int, default=25, help="frames of each (default: 25)")
    parser.add_argument("--side", type=int, default=512, help="larger ones are scaled down to this (default: 512)")
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    args = parser.parse_args(argv)
    args.preset = "x264"
    check_output_directory(args.out)
    rows = []
    for path in args.videos:
        frames = read_video(path)[0][: args.frames]
        side = min(frames.shape[1:3])
        top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
        frames = frames[:, top : top + side, left : left + side]
        if side > args.side:
            frames = np.stack([resized(frame, args.side, args.side) for frame in frames])
        side = frames.shape[1]
        rows += [(f"{path.name}, {side} px", name, *survived(method, frames)) for name, method in methods().items()]
    header = ("video", "library", "not marked", "marked", "written (crf 16)", "and again, crf 23", "crf 30", "scaled",
              f"cut by {CUT} px", "PSNR, dB", "ms a frame")  # fmt: skip
    text = (
        f"The first {args.frames} frames of each video. Bits that are right, of 32, of which half are ones; by chance "
        "it is what stands below 'not marked', 0.50 on average over marks. Milliseconds are of the CPU, of all its "
        "cores together, for marking alone.\n\n" + table(header, rows)
    )
    figures = {"rows": [dict(zip(header, row, strict=True)) for row in rows]}
    print(f"wrote {write_result(args.out, 'watermark', args, torch.device('cpu'), figures, text)}\n\n{text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "watermark.py"))
