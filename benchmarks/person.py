"""What a minute of one person's video gives a general model: identity and lip-sync before and after.

A run is fine-tuned on a synthetic person whom it has never seen, once by an adapter and once in all weights, by
`df-train --config configs/train/person.yaml`; the model as it was and the two are measured by `df-eval` on the same
held-out sentences of that person. Everything goes into `--work`; runs that are finished there are taken as they are.

    uv run python benchmarks/person.py runs/quickstart
    uv run python benchmarks/person.py runs/quickstart --steps 4 --clips 2 --frames 33   # does it work at all
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from common import write_result
from evaluated import add_measuring, compared, do, measure, options_of

from df_infer.run_dir import RunDir, open_run_dir, read_record
from df_models.cli_support import run_cli
from df_models.files import check_output_directory

CONFIG = Path(__file__).parents[1] / "configs" / "train" / "person.yaml"
FULL_LR = 3e-4
"""Peak of the learning rate for all weights, below the adapter's: they move together, and forget sooner."""
KINDS: Mapping[str, Sequence[str]] = {
    "adapter": (),
    "all weights": ("adapter.kind=none", f"optim.lr={FULL_LR}"),
}
MEASURES = {
    "lip_sync": "lip-sync",
    "identity_person": "identity distance to the person",
    "identity_distance": "identity distance to the portrait",
    "sharpness_ratio": "sharpness, of the truth's",
}


def train(args: argparse.Namespace, kind: str, extra: Sequence[str]) -> Path:
    """Fine-tune the general model, or take the finished run that is there."""
    directory = args.work / kind.replace(" ", "-")
    if RunDir(directory).finished:
        return directory
    settings = [f"run_dir={directory}", f"model.start_from={args.run / 'model'}", f"data.root={args.work / 'data'}"]
    settings += [f"device={args.device}", "sample.clips=0", *extra]
    if args.steps is not None:
        settings += [f"optim.steps={args.steps}", f"optim.warmup={min(10, args.steps // 2)}"]
    do("df_train.cli", "--config", CONFIG, *settings)
    return directory


def before(args: argparse.Namespace, after: Path) -> Path:
    """The general model as if it were a run on the person's dataset: the fine-tuned run's record and config with it."""
    run, source = RunDir(args.work / "before"), RunDir(after)
    record = read_record(source.record)
    assert record is not None
    shutil.rmtree(run.root, ignore_errors=True)
    run.write_record(record)
    shutil.copy(source.config, run.config)
    shutil.copytree(args.run / "model", run.model)
    return run.root


def main(argv: list[str]) -> int:
    """Train, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the general model's run, such as runs/quickstart")
    parser.add_argument("--work", type=Path, default=Path("runs/person-bench"), help="where data and runs go")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: the config's)")
    add_measuring(parser, 16)
    args = parser.parse_args(argv)
    open_run_dir(args.run)
    check_output_directory(args.out)
    runs = {kind: train(args, kind, extra) for kind, extra in KINDS.items()}
    models = {"before": before(args, runs["adapter"]), **runs}
    measured = {name: measure(run, RunDir(run).eval, *options_of(args)) for name, run in models.items()}
    args.preset = args.run.resolve().name
    device = torch.device("cuda" if args.device in ("auto", "cuda") and torch.cuda.is_available() else "cpu")
    text = "60 s of a person never seen in training; 95 % intervals over the held-out sentences, the same for all.\n\n"
    written = write_result(
        args.out,
        "person",
        args,
        device,
        {"rows": measured},
        text + compared(measured, MEASURES, f"{args.clips} sentences"),
    )
    print(f"wrote {written}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "person.py"))
