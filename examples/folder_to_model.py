"""A folder of talking-head videos to shards to a small model.

    uv run python examples/folder_to_model.py VIDEOS --out my-model --steps 600

One person speaks in each video (one file per person or not: every file counts as a person of its own here). The
two small models that the stages need lie in ``$DF_TEST_WEIGHTS`` (docs/real-data.md says where they come from). The
same in two commands: ``df-data build VIDEOS --out my-model/data stages.size=64``, ``df-train --config
configs/train/grid.yaml data.root=my-model/data``.
"""

import argparse
from pathlib import Path

from df_data.build.build import build
from df_data.build.config import BuildConfig
from df_data.sources.matching import VIDEOS
from df_models.cli_support import run_cli
from df_models.settings import validate_config
from df_train.cli import main as df_train

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def shards(videos: Path, out: Path, val: int, pattern: str) -> None:
    """Take the videos through the stages; a ledger line says what became of each."""
    source = {"name": "mine", "folder": str(videos), "pattern": pattern, "identity": "file", "licence": "mine"}
    settings = {
        "out": str(out),
        "sources": [source],
        "split": {"by": "identity", "val": val},
        "stages": {"size": 64, "crop": "yunet:1.3:-0.03"},
        "clips": {"frames": 33, "stride": 20, "val_frames": 33},
        "keep_video": True,
    }
    build(validate_config(BuildConfig, settings))


def model(data: Path, run: Path, steps: int, changes: list[str]) -> int:
    """Train the quickstart model on the shards; return df-train's exit code."""
    settings = [f"data.root={data}", f"run_dir={run}", f"optim.steps={steps}", "sample.frames=33", *changes]
    return df_train(["--config", str(CONFIGS / "train" / "grid.yaml"), *settings])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="folder of videos")
    parser.add_argument("--out", type=Path, default=Path("my-model"), help="directory for shards and run")
    parser.add_argument("--pattern", default=VIDEOS, help="which files, such as '*.{mp4,mov}' (default: all videos)")
    parser.add_argument("--val", type=int, default=1, help="videos that are held out (default: 1)")
    parser.add_argument("--steps", type=int, default=600, help="training steps (default: 600)")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="settings of df-train")
    options = parser.parse_intermixed_args(argv)
    shards(options.videos, options.out / "data", options.val, options.pattern)
    return model(options.out / "data", options.out / "run", options.steps, options.changes)


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "folder_to_model.py"))
