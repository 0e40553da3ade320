"""Launches of `df-train` in one or several processes that are forked, so that torch is loaded once for many of them.

Reads one JSON object a line: the number of `ranks`, `argv`, `code` to run in each process before `df-train`, seconds of
training after which all are killed (`kill_after`, null for never) and the `limit` in seconds. Answers each with a line
of its own: the exit codes and what each process said, or null in the codes' place if the limit was exceeded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what each process would import by itself
import torch.distributed as dist

from df_train import run
from df_train.cli import main
from df_train.engine import Trainer


def mark(begun: Path) -> None:
    """Leave a file when training begins."""
    fit = Trainer.fit

    def marked(self: Trainer) -> Any:
        begun.touch()
        return fit(self)

    Trainer.fit = marked


def process(rank: int, launch: dict[str, Any], port: int | None, said: Path) -> None:
    out = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1), os.dup2(out, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    torch.set_num_threads(1)
    if port is not None:
        told = {"RANK": rank, "WORLD_SIZE": launch["ranks"], "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in told.items()} | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    code = 1
    run.plot_losses = lambda *_: False  # a third of the time that a tiny run takes
    try:
        mark(said.with_name("begun"))
        exec(launch["code"], {"RANK": rank})
        code = main(launch["argv"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def launched(launch: dict[str, Any], folder: Path) -> dict[str, Any]:
    ranks = launch["ranks"]
    begun = folder / "begun"
    begun.unlink(missing_ok=True)
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False) if ranks > 1 else None
    said = [folder / str(rank) for rank in range(ranks)]
    children = {}
    for rank in range(ranks):
        said[rank].unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            process(rank, launch, server.port if server else None, said[rank])
        children[child] = rank
    codes, began, killed = [0] * ranks, time.monotonic(), False
    patience = launch["limit"]
    while children:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            codes[children.pop(ended)] = os.waitstatus_to_exitcode(status)
        elif launch["kill_after"] is not None and begun.exists():
            begun.unlink()
            began, patience = time.monotonic(), launch["kill_after"]
        elif not killed and time.monotonic() - began > patience:
            killed = True
            for child in children:
                os.kill(child, signal.SIGKILL)
        else:
            time.sleep(0.002)
    stuck = killed and patience == launch["limit"]
    return {"codes": None if stuck else codes, "said": [path.read_text(errors="replace") for path in said]}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            print(json.dumps(launched(json.loads(line), Path(folder))), flush=True)
