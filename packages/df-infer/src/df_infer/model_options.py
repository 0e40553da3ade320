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
    model.add_argument(
        "--run",
        required=True,
        type=Path,
        metavar="DIR",
        help="a run of df-train, or a saved model's directory",
    )
    model.add_argument(
        "--checkpoint", type=int, metavar="N", help="the run's milestone of step N (default: its final model)"
    )
    model.add_argument(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="a low-rank adapter to add to the model: its directory, or the run that trained it (default: none)",
    )
    model.add_argument(
        "--prompt", metavar="TEXT", help="what a model that reads text is told (default: what it was trained with)"
    )
    model.add_argument(
        "--face-detector",
        metavar="FILE",
        help="the face detector's file; models that crop around the face need it (default: none)",
    )
    machine.add_argument("--device", default="auto", help=f"{DEVICE_NAMES} (default: auto)")
    machine.add_argument(
        "--dtype",
        default="auto",
        help="of the model: float32, bfloat16, float8 (GPUs from compute capability 8.9 on; df-infer[float8]), or "
        "auto: bfloat16 where the device has it (default: auto)",
    )
    machine.add_argument(
        "--compile",
        action="store_true",
        help="compile the model's step: a minute or two at first, then faster frames (default: off)",
    )
    machine.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads, at most as many as cores (default: OMP_NUM_THREADS; else 1 for a model of small layers, "
        "which more threads only slow down beside other programs, and `generate` decodes in another; else all cores)",
    )


def open_pipeline(args: argparse.Namespace) -> Pipeline:
    """Return the model that the options name, ready to generate, and have this process compute in as many threads.

    Raises:
        UserError: as :meth:`df_infer.pipeline.Pipeline.from_run`; no thread, or more than there are cores; a face
            detector for a model that looks for no faces.
    """
    from df_infer.pipeline import Pipeline
    from df_infer.threads import check_threads

    if args.threads is not None:
        check_threads(args.threads)
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
    if args.face_detector is not None and not pipeline.looks_for_faces:
        raise UserError("--face-detector: this model was trained without face crops and looks for none; leave it out")
    pipeline.take_threads(args.threads)
    return pipeline
