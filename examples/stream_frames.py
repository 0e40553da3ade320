"""Frames as they are made: every latent frame is shown as soon as it is decoded, in constant memory.

    uv run python examples/stream_frames.py --run runs/quickstart --image examples/face.png --audio examples/speech.wav

Here each frame only moves a meter in the terminal; a player, an encoder or a socket would take its place.
"""

import argparse
import time
from pathlib import Path

from df_infer.pipeline import Pipeline
from df_models.cli_support import run_cli
from df_models.media import read_audio, read_image
from df_models.time import FPS


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run of df-train, or a saved model")
    parser.add_argument("--image", type=Path, required=True, help="the portrait")
    parser.add_argument("--audio", type=Path, required=True, help="speech")
    parser.add_argument("--frames", type=int, help="pixel frames, 1 + 4 n (default: as long as the audio)")
    options = parser.parse_args(argv)

    pipeline = Pipeline.from_run(options.run)
    pipeline.take_threads()
    clips = pipeline.stream(read_image(options.image), read_audio(options.audio), num_frames=options.frames)
    began, shown = time.monotonic(), 0
    for clip in clips:
        shown += len(clip.frames)  # uint8 [P, H, W, 3]; clip.structure is [P, D] in the model's named fields
        speed = shown / FPS / (time.monotonic() - began)
        print(f"\r{shown} frames of {clip.frames.shape[2]}x{clip.frames.shape[1]}, {speed:.2f} x real time", end="")
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "stream_frames.py"))
