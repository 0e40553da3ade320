"""`df-train`: train a model from a configuration file."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import TYPE_CHECKING, Any

from df_models.cli_support import (
    EXIT_AGAIN,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    CommandParser,
    Terminated,
    add_version,
    command,
    run_cli,
)
from df_models.errors import UserError, nearest
from df_models.settings import add_print_config, dump_config, load_config, read_tree

if TYPE_CHECKING:
    from df_train.saving.start import Wish

_DESCRIPTION = """\
Train DualForce, its video tokenizer or a lip-sync expert, as a configuration file says.

Everything the run writes goes into one directory, runs/<name>/: config.yaml (all settings), metrics.jsonl,
checkpoints/ (to resume), model/ (the averaged weights, to use), samples/ (videos with audio, a contact sheet),
loss.png. If the dataset is not there and the configuration describes a synthetic one, it is made first.
"""

_EPILOG = """\
examples:
  df-train --config configs/train/quickstart.yaml
  df-train --config configs/train/quickstart.yaml name=wider model.overrides.dim=256 optim.lr=5e-4
  df-train --config configs/train/quickstart.yaml --resume optim.steps=4000
  df-train --config /moved/run/config.yaml --resume --data /moved/data
  torchrun --nproc-per-node 8 -m df_train.cli --config my.yaml

A run that was stopped (Ctrl-C, a crash, max_minutes) goes on where it was when the same command is given again.

exit codes: 0 done; 1 training failed; 2 a mistake in what was asked; 3 the machine lacks something (disk, a package);
75 told to stop by a scheduler (SIGTERM, SIGUSR1), 130 interrupted: the same command goes on, from a checkpoint saved
then if training had begun; 76 one of several processes hung (hang_minutes)
"""


_GOES_ON = "the same command goes on from what is finished"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    with _usr1_as_sigterm():
        if not _launched():
            return _run(_main, argv)
        from df_train.processes import peers

        code = 1
        try:
            code = _run(lambda arguments: peers.heard_once(_main, arguments), argv)
        finally:
            peers.tell_code(code)
            if argv is None:
                _keep_code()
        return code


def _keep_code() -> None:
    """Let the exit code stand: launchers send SIGTERM as soon as another process has ended, and a process that a
    signal ends while Python winds up has lost its own."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _run(main: Callable[[list[str]], int], argv: list[str] | None) -> int:
    """The exit code; whatever a scheduler ends goes on with the same command, whether it was training yet or not."""
    code = run_cli(lambda arguments: _how_to_go_on(main, arguments), "df-train", argv)
    return EXIT_AGAIN if code == EXIT_TERMINATED else code


def _how_to_go_on(main: Callable[[list[str]], int], argv: list[str]) -> int:
    try:
        return main(argv)
    except KeyboardInterrupt as interrupt:
        if str(interrupt):
            raise
        ended = "ended by SIGTERM" if isinstance(interrupt, Terminated) else "interrupted"
        raise KeyboardInterrupt(f"{ended}; {_GOES_ON}") from interrupt


@contextlib.contextmanager
def _usr1_as_sigterm() -> Iterator[None]:
    """Let SIGUSR1, a scheduler's notice, do what SIGTERM does, which it would not outside of the training loop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def end(signum: int, frame: FrameType | None) -> None:
        if os.getpid() == owner and callable(signal.getsignal(signal.SIGTERM)):
            raise Terminated(f"ended by SIGUSR1; {_GOES_ON}")
        os.kill(os.getpid(), signal.SIGTERM)  # in forked children, and before anybody looks after it

    old = signal.signal(signal.SIGUSR1, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGUSR1) != signal.SIG_IGN:
            signal.signal(signal.SIGUSR1, old)


def _launched() -> bool:
    """Whether several processes may be meant, before anything heavy is imported to ask (`df_train.processes.peers`)."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "df-train", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_version(parser, "df-train")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="YAML file, e.g. from configs/train")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="settings to change, e.g. optim.lr=5e-4"
    )
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument("--resume", action="store_true", help="continue the run; also one that is finished")
    wish.add_argument("--fresh", action="store_true", help="remove what the run has written and start at step 0")
    parser.add_argument("--data", metavar="DIR", help="the run's dataset, if it was moved (data.root=DIR)")
    add_print_config(parser)
    parser.add_argument("--check", action="store_true", help="check configuration, device and disk, then stop")
    return parser


def _main(argv: list[str]) -> int:
    began = time.monotonic()  # a time budget counts from here
    with _first_heard():
        options = _parser().parse_intermixed_args(argv)
    task = task_of(options.config, options.overrides)
    if task == "tokenizer":
        return _train_tokenizer(options)
    if task == "sync":
        return _train_sync(options)
    return _train_model(options, began)


@contextlib.contextmanager
def _first_heard() -> Iterator[None]:
    """Let only the first of several processes print; what argparse says is the same in all."""
    with contextlib.ExitStack() as stack:
        if os.environ.get("RANK", "0") != "0":
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stderr(silence))
            stack.enter_context(contextlib.redirect_stdout(silence))
        yield


def task_of(path: Path, overrides: list[str]) -> str:
    """What a configuration trains: its top-level `task`, `model` if it has none.

    Raises:
        UserError: there is no such file, it cannot be read, or no such task.
    """
    task = str(read_tree(path, overrides).get("task", "model"))
    from df_train.tasks import TASKS

    known = (*TASKS, "tokenizer", "sync")
    if task not in known:
        raise UserError(f"task: there is no {task!r}{nearest(task, known)}; use {', '.join(known[:-1])} or {known[-1]}")
    return task


def said(overrides: list[str]) -> set[str]:
    """The settings that a command line names, dotted, also where it names them together (`optim={lr: 1e-3}`)."""

    def leaves(tree: dict[str, Any], above: str = "") -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{above}{key}.")
            else:
                yield f"{above}{key}"

    return set(leaves(read_tree(None, overrides)))


def _train_tokenizer(options: argparse.Namespace) -> int:
    from df_train.tokenizer import train as tokenizer
    from df_train.tokenizer.config import TokenizerConfig

    if options.data is not None:
        raise UserError("--data is for models; a tokenizer's videos are named by data.shards=DIR")
    config = load_config(TokenizerConfig, options.config, options.overrides)
    return _by_recipe(tokenizer, config, "VAE", options)


def _train_sync(options: argparse.Namespace) -> int:
    from df_train.sync import train as sync
    from df_train.sync.config import SyncConfig

    named = [] if options.data is None else [f"data.root={json.dumps(options.data)}"]
    config = load_config(SyncConfig, options.config, [*options.overrides, *named])
    return _by_recipe(sync, config, "lip-sync expert", options)


def _by_recipe(recipe: Any, config: Any, makes: str, options: argparse.Namespace) -> int:
    """Train what a module with a `preflight`, a `rhythm_of` and a `train` of its own makes."""
    from df_infer.run_dir import RunDir
    from df_train.engine import NotFinite
    from df_train.recipe import check_start

    if options.print_config:
        print(dump_config(config), end="")
        return 0
    if options.check:
        recipe.preflight(config)
        check_start(RunDir(config.run_dir.path), recipe.rhythm_of(config), _wish(options))
        print(f"{options.config}: ready to train in {config.run_dir}")
        return 0
    try:
        made = recipe.train(config, _wish(options))
        print(f"{makes}: {made}\n\nnext:\n  {recipe.follows(made)}")
    except NotFinite as error:
        print(f"df-train: error: {error}", file=sys.stderr)
        return 1
    return 0


def _wish(options: argparse.Namespace) -> Wish:
    if options.fresh and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        raise UserError("torchrun begins again, but --fresh would remove what was trained; give the command without it")
    return "resume" if options.resume else "fresh" if options.fresh else "default"


def _train_model(options: argparse.Namespace, began: float) -> int:
    if os.environ.get("RANK", "0") == "0" and not options.print_config:
        print("df-train: loading PyTorch and the model's code ...", flush=True)
    from df_train import run
    from df_train.config import TrainConfig
    from df_train.engine import NotFinite
    from df_train.processes import peers
    from df_train.saving.start import check_named, in_its_place

    overrides = (
        options.overrides if options.data is None else [*options.overrides, f"data.root={json.dumps(options.data)}"]
    )
    config = load_config(TrainConfig, options.config, overrides)
    if not any(text.startswith(("run_dir=", "name=")) for text in options.overrides):
        config = in_its_place(config, options.config)
    if options.data is not None:
        check_named(config.data)
    wish = _wish(options)
    if options.print_config:
        print(dump_config(config), end="")
        return 0
    if options.check:
        for line in run.check(config, wish):
            run.say(line)
        run.say(f"{options.config}: ready to train in {config.directory}")
        return 0
    try:
        result = run.train(config, wish, began, said(options.overrides))
    except NotFinite as error:  # in all processes alike
        if peers.own_rank() == 0:
            print(f"df-train: error: {error}", file=sys.stderr)
        return 1
    if peers.own_rank() == 0:
        print(summary(result, config.directory))
    return {run.Stop.INTERRUPTED: EXIT_INTERRUPTED, run.Stop.TOLD: EXIT_AGAIN}.get(result.stop, 0)


def summary(result: Any, directory: Path) -> str:
    """What the user sees at the end: where things lie and what to do next."""
    lines = ["", f"{_ended(result)} (step {result.step}, {result.seconds / 60:.1f} minutes of training)"]
    if result.stop.goes_on:
        return "\n".join(
            [*lines, f"checkpoint saved in {directory / 'checkpoints'}; the same command continues the run"]
        )
    lines.append(f"  model           {directory / 'model'}")
    if result.videos:
        lines.append(f"  sample video    {result.videos[0]}")
    if result.contact_sheet:
        lines.append(f"  contact sheet   {result.contact_sheet}")
    if result.loss_plot:
        lines.append(f"  loss plot       {result.loss_plot}")
    lines += ["", "next:"]
    if result.measurable:
        where = " --data DIR   # DIR: a directory with the dataset's val/" if result.far else ""
        lines.append(f"  {command(f'df-eval {quote(str(directory))}{where}')}")
    else:  # general video, or a model of structure alone
        start = quote(f"model.start_from={directory / 'model'}")
        lines.append(f"  a stage that begins with it: {start} model.architecture=preset")
    if result.example:
        face, speech = result.example
        cropped = " --cropped" if result.crops_faces else ""
        run, image, audio = (quote(str(path)) for path in (directory, face, speech))
        generate = f"df-infer generate --run {run} --image {image}{cropped} --audio {audio} --out out.mp4"
        lines.append(f"  {command(generate)}")
    return "\n".join(lines)


def _ended(result: Any) -> str:
    """Why training ended; a model that a time budget has cut short is not called complete."""
    if result.stop.name != "DONE" or result.full_steps is None or result.step >= result.full_steps:
        return result.stop.value
    return f"the steps that fit the time budget are taken, {result.step} of {result.full_steps}: more time teaches more"


if __name__ == "__main__":
    sys.exit(main())
