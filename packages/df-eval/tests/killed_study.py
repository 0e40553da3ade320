"""A study in a process that can be killed; forked by a server that has no threads.

A fork of the tests' own process would wait for ever where the garbage that other tests left needs a thread of theirs.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from df_eval.study.config import StudyConfig
from df_eval.study.programs import Programs
from df_eval.study.run import run_study

STUBS = Path(__file__).with_name("study_stubs.py")
PROGRAMS = Programs(*((sys.executable, "-S", str(STUBS), name) for name in ("train", "eval", "corpus")))


def start(config: StudyConfig, directory: Path) -> BaseProcess:
    """Run a study in a directory, in a process group of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["df_eval.study.run"])  # a new interpreter would load torch for seconds, each time
    process = context.Process(target=_study, args=(config, directory))
    process.start()
    return process


def _study(config: StudyConfig, directory: Path) -> None:
    os.setsid()
    os.chdir(directory)
    run_study(config, lambda line: None, programs=PROGRAMS)
