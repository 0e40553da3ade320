"""Worker processes that do one thing at a time and never outlive their parent."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import parent_process

import torch


def be_a_worker() -> None:
    """Initialise a worker of a process pool: one arithmetic thread, deaf to Ctrl-C, ending with its parent.

    A parent that is killed cannot stop its workers, and a worker that waits for work would wait for ever.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True, name="follow-parent").start()
