"""What a model reaches with few sampling steps, and what its distilled student does.

df-eval measures the teacher and the student (`task: distill`, configs/train/quickstart/stage3-fewstep.yaml) on the same
held-out clips with the same noise, at each number of steps; the teacher with the guidance of its own run, the student
as it was trained, with none beside. A student's `distill.levels` must be a multiple of each number.

    uv run python benchmarks/steps.py runs/quickstart-stage2 runs/quickstart-stage3
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import write_result
from evaluated import add_measuring, compared, measure, options_of

from df_infer.run_dir import open_run_dir
from df_models.cli_support import run_cli
from df_models.files import check_output_directory

MEASURES = {
    "lip_sync": "lip-sync",
    "motion_ratio": "motion, of the truth's",
    "identity_person": "identity distance to the person",
    "sharpness_ratio": "sharpness, of the truth's",
}


def main(argv: list[str]) -> int:
    """Measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="the model's run, such as runs/quickstart-stage2")
    parser.add_argument("student", type=Path, help="the distilled model's run, such as runs/quickstart-stage3")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8], help="sampling steps (default: 1 2 4 8)")
    parser.add_argument("--work", type=Path, default=Path("runs/steps-bench"), help="where the measurements go")
    parser.add_argument("--data", type=Path, help="the dataset to measure on (default: the runs' own)")
    add_measuring(parser, 32)
    args = parser.parse_args(argv)
    for run in (args.teacher, args.student):
        open_run_dir(run)
    check_output_directory(args.out)
    common = options_of(args) + ([] if args.data is None else ["--data", args.data])
    measured = {
        f"{name}, {steps} steps": measure(run, args.work / f"{name}-{steps}", *common, f"rollout.steps={steps}")
        for name, run in (("teacher", args.teacher), ("student", args.student))
        for steps in args.steps
    }
    args.preset = args.student.resolve().name
    device = torch.device("cuda" if args.device in ("auto", "cuda") and torch.cuda.is_available() else "cpu")
    text = "95 % intervals over people (value ± t × bootstrap standard error); the clips are the same in all rows.\n\n"
    text += compared(measured, MEASURES, f"{args.clips} held-out clips")
    print(f"wrote {write_result(args.out, 'steps', args, device, {'rows': measured}, text)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "steps.py"))
