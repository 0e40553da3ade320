"""What every command that runs a model asks of it: which one, and on what machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from df_models.device import DEVICE_NAMES
from df_models.errors import UserError

if TYPE_CHECKING:
    from df_infer.pipeline import Pipeline


def add_model_options(model: argparse._ArgumentGroup, machine: argparse._ArgumentGroup) -> None:
    """Add the options that :func:`open_pipeline` reads to two groups of a command's help."""
    model.add_argument("--run", required=True, type=Path, help="run directory, or a saved model's directory")
    model.add_argument("--checkpoint", type=int, metavar="N", help="take the run's milestone of step N")
    model.add_argument(
        "--adapter", type=Path, metavar="PATH", help="add a low-rank adapter: its directory, or the run that trained it"
    )
    model.add_argument("--prompt", help="what a model that reads text is told (default: what it was trained with)")
    machine.add_argument("--device", default="auto", help=f"{DEVICE_NAMES} (default: auto)")
    machine.add_argument(
        "--dtype", default="auto", help="float32, bfloat16, or auto (default): bfloat16 where the device has it"
    )
    machine.add_argument(
        "--compile", action="store_true", help="compile the model's step: a minute or two at first, then faster frames"
    )
    machine.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads (default: OMP_NUM_THREADS, else 1 for a model of small layers, which more threads only slow "
        "down beside other programs, else all cores)",
    )
    machine.add_argument("--face-detector", help="the face detector's file, for models that crop around the face")


def open_pipeline(args: argparse.Namespace) -> Pipeline:
    """Return the model that the options name, ready to generate, and have this process compute in as many threads.

    Raises:
        UserError: as :meth:`df_infer.pipeline.Pipeline.from_run`; no thread at all.
    """
    import torch

    from df_infer.pipeline import Pipeline
    from df_infer.threads import suited_threads

    if args.threads is not None and args.threads < 1:
        raise UserError(f"--threads {args.threads}: give 1 or more")
    pipeline = Pipeline.from_run(
        args.run,
        args.device,
        args.dtype,
        prompt=args.prompt,
        face_detector=args.face_detector,
        checkpoint=args.checkpoint,
        adapter=args.adapter,
        compiled=args.compile,
    )
    threads = args.threads
    if threads is None and pipeline.model.device.type == "cpu":
        threads = suited_threads(pipeline.model.config, pipeline.rollout)
    if threads is not None:
        torch.set_num_threads(threads)
    return pipeline
