"""``python -m df_eval.study.corpus --config FILE --out DIR``: make a synthetic corpus before the runs that share it.

`df-train` makes its corpus itself where it is missing, but one process alone may: two runs of a study that start
together would refuse each other. `df-data synth` has flags for some of a corpus's settings, and this takes them all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from df_data.synth.config import SynthConfig
from df_models.cli_support import run_cli
from df_models.settings import load_config


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("df_eval.study.corpus", description="Make a synthetic corpus, or go on with it.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file of its settings (data.synth of df-train)")
    parser.add_argument("--out", type=Path, required=True, help="its directory")
    options = parser.parse_args(argv)
    config = load_config(SynthConfig, options.config)
    from df_data.synth.corpus import build_corpus  # loads numba

    options.out.parent.mkdir(parents=True, exist_ok=True)
    build_corpus(config, options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(_main, "df_eval.study.corpus"))
