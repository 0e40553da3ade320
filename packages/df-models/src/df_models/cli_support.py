"""What every command of DualForce shares: exit codes, one-line errors, and how packages and commands are named.

Exit codes: 0 done; 1 it ran and failed; 2 a mistake in what was asked; 3 the machine lacks something (a full disk,
a package that is not installed); 75 told to stop by a scheduler, and the same command goes on (df-train; EX_TEMPFAIL of
sysexits.h); 76 one of several processes hung (df-train); 129 ended by SIGHUP; 130 interrupted;
143 ended by SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from types import FrameType
from typing import Any, NoReturn

from df_models.errors import UserError, nearest

EXIT_USER = 2
EXIT_MACHINE = 3
EXIT_AGAIN = 75
EXIT_HUNG = 76
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

PACKAGES = ("df-models", "df-data", "df-infer", "df-train", "df-eval")
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "pillow", "ruamel": "ruamel.yaml"}
"""Distributions that are not named as their modules are."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NO_PLACE = (errno.EACCES, errno.EROFS, errno.ENAMETOOLONG)


BROKEN = (errno.EFBIG, errno.EIO)
ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a program: a scheduler's, and that of a terminal that is gone."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came; raised so that what was begun is cleaned up as after Ctrl-C.

    Attributes:
        signal: which.
    """

    signal = signal.SIGTERM


class MachineError(RuntimeError):
    """The machine lacks something; the message says in one line what, and what to do."""


class CommandParser(argparse.ArgumentParser):
    """A parser that takes no option by its beginning (`--fre` is not `--fresh`), and names the nearest of a wrong one.

    Subcommands are of its kind.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """See :class:`argparse.ArgumentParser`; what a subcommand does not know is told by it, not by its parent."""
        given = sys.argv[1:] if args is None else list(args)
        found, unknown = self.parse_known_args(given, namespace)
        if unknown:
            _owner(self, given, unknown[0]).error(f"unrecognized arguments: {' '.join(unknown)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Exit with 2, and a line: the whole usage above it would hide it."""
        wrong = re.search(r"unrecognized arguments:.*?(--[\w-]+)", message)
        known = [option for action in self._actions for option in action.option_strings]
        hint = "" if wrong is None else nearest(wrong[1], known)
        raise SystemExit(_fail(self.prog, f"{message}{hint}; see {command(self.prog)} --help", EXIT_USER))


def _owner(parser: argparse.ArgumentParser, given: Sequence[str], unknown: str) -> argparse.ArgumentParser:
    """The parser of the subcommand after which an unknown word was given."""
    choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for place, word in enumerate(given):
        if word == unknown:
            break
        for known in choices:
            if word in known:
                return _owner(known[word], given[place + 1 :], unknown)
    return parser


def add_version(parser: argparse.ArgumentParser, package: str) -> None:
    """Add ``--version``, printing the installed version of ``package``."""
    parser.add_argument("--version", action="version", version=f"{package} {metadata.version(package)}")


def run_cli(main: Callable[[list[str]], int | None], prog: str, argv: list[str] | None = None) -> int:
    """Run ``main(argv)``; print a user's or the machine's trouble as one line; return the exit code.

    ``main`` may raise a KeyboardInterrupt with a line of its own, such as one on how to go on. A fault of the program
    itself is not caught: its traceback is what a bug report needs.
    """
    share_cores()
    try:
        with _ending_raises():
            return main(sys.argv[1:] if argv is None else argv) or 0
    except UserError as error:
        return _fail(prog, str(error), EXIT_USER)
    except MachineError as error:
        return _fail(prog, str(error), EXIT_MACHINE)
    except ModuleNotFoundError as error:
        return _fail(prog, missing_package(prog, error.name or str(error)), EXIT_MACHINE)
    except KeyboardInterrupt as interrupt:
        if argv is None:
            _end_at_once_if_told_again()
        came = _terminated(interrupt)
        ended = "interrupted" if came is None else f"ended by {came.name}"
        return _fail(prog, str(interrupt) or ended, EXIT_INTERRUPTED if came is None else 128 + came)
    except Exception as error:
        if (full := disk_full(error)) is not None:
            return _fail(prog, f"the disk is full ({full or 'while writing'}); free some space", EXIT_MACHINE)
        if isinstance(error, OSError) and error.errno in NO_PLACE:
            return _fail(prog, f"{error.filename or 'a file'}: {error.strerror}", EXIT_USER)
        if isinstance(error, OSError) and error.errno in BROKEN:
            return _fail(prog, f"{error.filename or 'a file'}: {error.strerror}", EXIT_MACHINE)
        raise


def share_cores() -> None:
    """Let OpenMP's waiting threads sleep after some microseconds; read when torch is loaded, which is later.

    GNU OpenMP spins for milliseconds by default, which takes the cores from whatever else runs there, and from the very
    thread that is waited for: ``benchmarks/neighbours.py``. Alone nothing changes.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _end_at_once_if_told_again() -> None:
    """Let a second Ctrl-C end a command that is winding up: threads of libraries would answer it with tracebacks."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))


def announce_loading(prog: str) -> None:
    """Say on a terminal that PyTorch is being loaded: it takes seconds, and more on a machine that is new to it."""
    if sys.stderr.isatty():
        print(f"{prog}: loading PyTorch and the model's code ...", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _ending_raises() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program by an exception, unless somebody else looks after them (``nohup``).

    Forked children begin with their parent's handlers; there the signals end the process as they do by default.
    """
    owner = os.getpid()

    def end(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        ended = Terminated()
        ended.signal = signal.Signals(signum)
        raise ended

    ours = [signum for signum in ENDING if signal.getsignal(signum) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for signum in ours:
        signal.signal(signum, end)
    try:
        yield
    finally:
        for signum in ours:
            signal.signal(signum, signal.SIG_DFL)


def _terminated(error: BaseException | None) -> signal.Signals | None:
    """The signal that ended the program; None if it was Ctrl-C."""
    while error is not None:
        if isinstance(error, Terminated):
            return error.signal
        error = error.__cause__ or error.__context__
    return None


def disk_full(error: BaseException | None) -> str | None:
    """The file that a full disk stopped ("" if it is not known); None if the error has another reason.

    Libraries wrap it: safetensors gives the system's number in its text, PyAV an errno without being an OSError.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if getattr(error, "errno", None) in DISK_FULL:
            return str(getattr(error, "filename", None) or "")
        if re.search(rf"\(os error ({errno.ENOSPC}|{errno.EDQUOT})\)", str(error)):
            return ""
        error = error.__cause__ or error.__context__
    return None


def command(text: str) -> str:
    """A command line for the user to give next, as this one was given: through ``uv run`` or not."""
    return f"uv run {text}" if "UV" in os.environ else text


def missing_package(prog: str, module: str) -> str:
    """How to install a package: by the extra of the command's own package, or another one's, that asks for it."""
    name = module.partition(".")[0]
    extra = _extra_with(DISTRIBUTIONS.get(name, name.replace("_", "-").lower()), prog)
    wanted = f"'{extra}'" if extra else DISTRIBUTIONS.get(name, name)
    return f"the package {name!r} is not installed; install it with: pip install {wanted} (in the workspace: uv sync)"


def _extra_with(distribution: str, prog: str) -> str | None:
    """The extra (``df-models[media]``) that brings a distribution, by the installed packages' own metadata.

    One of the command's own package is preferred, also where it asks for another package's extra (``df-infer[io]``);
    of several, the one that brings the least.
    """
    direct = [(p, e) for p in (prog, *PACKAGES) for name, e, _ in _extras(p) if name == distribution]
    own = [e for p, e in direct if p == prog]
    own += [mine for name, mine, asked in _extras(prog) if any((name, extra) in direct for extra in asked)]
    if own:
        sizes = Counter(mine for _, mine, _ in _extras(prog))
        return f"{prog}[{min(own, key=lambda extra: sizes[extra])}]"
    return next((f"{p}[{e}]" for p, e in direct), None)


def _extras(package: str) -> Iterator[tuple[str, str, list[str]]]:
    """What the extras of an installed package ask for: distribution, the extra, and the extras of the distribution."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for requirement in metadata.requires(package) or ():
            extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
            name = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement)
            if extra and name:
                yield re.sub(r"[-_.]+", "-", name[1]).lower(), extra[1], (name[2] or "").split(",")


def _fail(prog: str, message: str, code: int) -> int:
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)
    return code
