"""The other processes of a launch, by the launcher's key-value store: what the first one did, and who failed first.

torchrun and `accelerate launch` describe a group in four environment variables and keep a store that all processes
reach. A collective operation gives up after some minutes, and a failure in one process surfaces as a traceback in the
others. Over the store a process can wait for as long as the first one works, and learn that another has failed.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

import torch.distributed as dist

from df_models.errors import UserError

T = TypeVar("T")

_NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FAILED, _CODE, _DONE = "df-train/failed", "df-train/code", "df-train/done"
_LONGEST_PAUSE = 1.0
_NEWS_SECONDS = 5.0
"""How long a process that fails waits to hear that another failed before it; news takes milliseconds."""
_OF_COLLECTIVES = (RuntimeError, dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)


class PeerFailed(RuntimeError):
    """Another process failed, and says why itself; this one has nothing to add."""


def launched() -> bool:
    """Whether a launcher (torchrun, accelerate launch) has described a group of processes in the environment.

    Raises:
        UserError: it is described in part only: this process would wait for others that nobody starts.
    """
    missing = _missing()
    if missing and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set without {', '.join(missing)}; start several processes with "
            "torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    return not missing


def _missing() -> list[str]:
    return [name for name in _NAMES if name not in os.environ]


def own_rank() -> int:
    """The place of this process among all of its launch; 0 without a launcher."""
    return int(os.environ["RANK"]) if launched() else 0


def count() -> int:
    """How many processes were launched; 1 without a launcher."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


@cache
def store() -> dist.Store:
    """The launcher's store; what processes wrote there before torchrun began them again is out of sight."""
    opened, _, _ = next(iter(dist.rendezvous("env://")))
    return dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", opened)


_turns = itertools.count()


def first_alone(work: Callable[[], T]) -> T:
    """Run `work` in the first process of the launch, however long it takes, and return its result in all of them.

    Every process must call it, in the same order. The result must be of JSON's types.

    Raises:
        PeerFailed: the first process failed, or another one meanwhile.
    """
    if count() == 1:
        return work()
    key = f"{_DONE}/{next(_turns)}"
    if own_rank() == 0:
        result = work()
        store().set(key, json.dumps(result))
        return result
    for pause in _pauses():
        if store().check([key]):
            break
        if store().check([_FAILED]):
            raise PeerFailed("another process failed")
        time.sleep(pause)
    return json.loads(store().get(key))


def heard_once(main: Callable[[list[str]], int], argv: list[str]) -> int:
    """Run `main`; of the processes that fail together, or because another did, only the first lets its error through.

    Returns:
        main's exit code; in a process that failed after another one, the one that `tell_code` gave there.
    """
    if count() == 1:
        return main(argv)
    try:
        return main(argv)
    except PeerFailed:
        return _code_of_the_first()
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            raise
        # a collective that another process left says RuntimeError, and news of why may be on its way
        if type(error) in _OF_COLLECTIVES:
            _appears(_FAILED)
        if fails_first(store()):
            raise
        return _code_of_the_first()


def fails_first(store: dist.Store) -> bool:
    """Whether this process is the first to say that it fails, and so the one to tell why."""
    return store.add(_FAILED, 1) == 1


def tell_code(code: int, own: dist.Store | None = None) -> None:
    """Tell the others with which code a process exits that let its error through.

    Args:
        own: a clone of the store, for a thread of its own.
    """
    if code and not _missing():
        told = own or store()
        if told.check([_FAILED]) and not told.check([_CODE]):
            told.set(_CODE, str(code))


def _code_of_the_first() -> int:
    return int(store().get(_CODE)) if _appears(_CODE) else 1


def _appears(key: str) -> bool:
    waited = 0.0
    for pause in _pauses():
        if store().check([key]):
            return True
        if waited > _NEWS_SECONDS:
            return False
        time.sleep(pause)
        waited += pause
    raise AssertionError("pauses never end")


def _pauses() -> Iterator[float]:
    """Seconds to wait between two looks: short at first, so that quick work costs little."""
    pause = 0.01
    while True:
        yield pause
        pause = min(2.0 * pause, _LONGEST_PAUSE)
