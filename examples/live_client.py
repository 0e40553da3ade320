"""Talk to a live server from a program: speech goes in as fast as it likes, frames and their sound come back in time.

    uv run df-infer serve --run runs/quickstart
    uv run python examples/live_client.py --audio examples/speech.wav --out live.mp4    # in another terminal

It waits until the server is there. What it receives it writes as a video; a player, a meeting or a robot would take its
place. The protocol: docs/serving.md.
"""

import argparse
import asyncio
import json
from pathlib import Path

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidHandshake, InvalidStatus, InvalidURI

from df_infer.serve.protocol import Piece, pcm_bytes, unpack
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.files import check_output
from df_models.media import read_audio, write_video
from df_models.time import SAMPLE_RATE


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="ws://127.0.0.1:8080", help="(default: %(default)s)")
    parser.add_argument("--token", help="of the server, where it has one")
    parser.add_argument("--audio", type=Path, required=True, help="speech")
    parser.add_argument("--out", type=Path, required=True, help="the MP4 to write")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds for a server to come up (default: 60)")
    options = parser.parse_args(argv)
    check_output(options.out, inputs=[options.audio])

    wave = read_audio(options.audio)
    try:
        pieces = asyncio.run(talk(options.server, options.token, wave, options.wait))
    except InvalidStatus as error:
        hint = "; give its --token" if error.response.status_code == 401 else ""
        raise UserError(f"the server at {options.server} answers {error.response.status_code}{hint}") from error
    except InvalidURI as error:
        raise UserError(f"--server {options.server}: give an address such as ws://127.0.0.1:8080") from error
    except (OSError, InvalidHandshake) as error:
        raise UserError(f"no server at {options.server} ({error}); start it with df-infer serve") from error
    except ConnectionClosedError as error:
        told = (error.rcvd.reason if error.rcvd is not None else "") or "without a word"
        raise UserError(f"the server closed the connection: {told}") from error
    frames = (frame for piece in pieces for frame in piece.frames)
    written = write_video(options.out, frames, audio=np.concatenate([piece.audio for piece in pieces]))
    print(f"wrote {options.out}: {written} frames")
    return 0


async def reach(server: str, headers: dict[str, str], wait_s: float) -> ClientConnection:
    """Connect, as soon as there is a server."""
    loop = asyncio.get_running_loop()
    until, told = loop.time() + wait_s, False
    while True:
        try:
            return await connect(f"{server}/v1/live", additional_headers=headers)
        except OSError:
            if loop.time() > until:
                raise
            if not told:
                print(f"waiting for a server at {server}, {wait_s:g} s at most")
                told = True
            await asyncio.sleep(0.5)


async def talk(server: str, token: str | None, wave_N: np.ndarray, wait_s: float) -> list[Piece]:
    """Send all sound, then receive until all of it was spoken."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    pieces: list[Piece] = []
    async with await reach(server, headers, wait_s) as socket:
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
