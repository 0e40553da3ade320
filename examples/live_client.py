"""Talk to a live server from a program: speech goes in as fast as it likes, frames and their sound come back in time.

    uv run df-infer serve --run runs/quickstart &
    uv run python examples/live_client.py --audio examples/speech.wav --out live.mp4

What it receives it writes as a video; a player, a meeting or a robot would take its place. The protocol:
docs/serving.md.
"""

import argparse
import asyncio
import json
from pathlib import Path

import numpy as np
from websockets.asyncio.client import connect

from df_infer.serve.protocol import Piece, pcm_bytes, unpack
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.media import read_audio, write_video
from df_models.time import SAMPLE_RATE


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="ws://127.0.0.1:8080", help="(default: %(default)s)")
    parser.add_argument("--token", help="of the server, where it has one")
    parser.add_argument("--audio", type=Path, required=True, help="speech")
    parser.add_argument("--out", type=Path, required=True, help="the MP4 to write")
    options = parser.parse_args(argv)

    pieces = asyncio.run(talk(options.server, options.token, read_audio(options.audio)))
    frames = (frame for piece in pieces for frame in piece.frames)
    written = write_video(options.out, frames, audio=np.concatenate([piece.audio for piece in pieces]))
    print(f"wrote {options.out}: {written} frames")
    return 0


async def talk(server: str, token: str | None, wave_N: np.ndarray) -> list[Piece]:
    """Send all sound, then receive until all of it was spoken."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    pieces: list[Piece] = []
    async with connect(f"{server}/v1/live", additional_headers=headers) as socket:
        await socket.send(json.dumps({"type": "start", "rate": SAMPLE_RATE}))
        async for message in socket:
            if isinstance(message, bytes):
                pieces.append(unpack(message))
                continue
            told = json.loads(message)
            if told["type"] == "ready":
                for start in range(0, len(wave_N), SAMPLE_RATE // 2):
                    await socket.send(pcm_bytes(wave_N[start : start + SAMPLE_RATE // 2]))
                await socket.send(json.dumps({"type": "end"}))
            elif told["type"] == "error":
                raise UserError(f"the server says: {told['message']}")
            elif told["type"] == "waiting":
                print(f"number {told['position']} in the line")
    return pieces


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "live_client.py"))
