"""What every command of DualForce shares: exit codes and one-line errors.

Exit codes: 0 done; 1 it ran and failed; 2 a mistake in what was asked; 3 the machine lacks something (a full disk,
a package that is not installed); 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable
from importlib import metadata

from df_models.errors import UserError

EXIT_USER = 2
EXIT_MACHINE = 3
EXIT_INTERRUPTED = 130


def add_version(parser: argparse.ArgumentParser, package: str) -> None:
    """Add ``--version``, printing the installed version of ``package``."""
    parser.add_argument("--version", action="version", version=f"{package} {metadata.version(package)}")


def run_cli(main: Callable[[list[str]], int | None], prog: str, argv: list[str] | None = None) -> int:
    """Run ``main(argv)``; print a user's or the machine's trouble as one line; return the exit code.

    ``main`` may raise a KeyboardInterrupt with a line of its own, such as one on how to go on. A fault of the program
    itself is not caught: its traceback is what a bug report needs.
    """
    try:
        return main(sys.argv[1:] if argv is None else argv) or 0
    except UserError as error:
        return _fail(prog, str(error), EXIT_USER)
    except ModuleNotFoundError as error:
        return _fail(prog, f"the package {error.name!r} is not installed; install it with: uv sync", EXIT_MACHINE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _fail(prog, f"the disk is full ({error.filename or 'while writing'}); free some space", EXIT_MACHINE)
    except KeyboardInterrupt as interrupt:
        return _fail(prog, str(interrupt) or "interrupted", EXIT_INTERRUPTED)


def _fail(prog: str, message: str, code: int) -> int:
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)
    return code
