"""Write docs/configuration.md: every key of every application's configuration, from the models themselves.

uv run python tools/make_configuration.py            # write it
uv run python tools/make_configuration.py --check    # exit with 1 if it is not what would be written
"""

from __future__ import annotations

from pathlib import Path

from pages import write_page
from pydantic import BaseModel

from df_data.build.config import BuildConfig
from df_data.fetch.config import FetchConfig
from df_data.synth.config import SynthConfig
from df_eval.config import EvalConfig
from df_eval.study.config import StudyConfig
from df_infer.config import GenerateConfig
from df_infer.serve.config import ServeConfig
from df_models.settings.reference import markdown
from df_train.config import TrainConfig
from df_train.sync.config import SyncConfig
from df_train.tokenizer.config import TokenizerConfig

DOCUMENT = Path(__file__).parents[1] / "docs" / "configuration.md"

APPLICATIONS: dict[str, type[BaseModel]] = {
    "df-train, `task: model`": TrainConfig,
    "df-train, `task: tokenizer`": TokenizerConfig,
    "df-train, `task: sync`": SyncConfig,
    "df-eval": EvalConfig,
    "df-study": StudyConfig,
    "df-infer generate": GenerateConfig,
    "df-infer serve": ServeConfig,
    "df-data synth (and `data.synth` of df-train)": SynthConfig,
    "df-data build, people": BuildConfig,
    "df-data plan, fetch": FetchConfig,
}

INTRODUCTION = """\
# Configuration

Every key of every application. This page is made from the configuration classes by
`uv run python tools/make_configuration.py`; a test holds it up to date. Change the classes, not the page.

A value comes from, in rising order of strength: the default; the YAML file that `extends:` names; the YAML file; the
command line (`key=value`, with dots between nested keys: `optim.lr=3e-4`, `betas=[0.9,0.95]`, `name=null`;
`df-infer generate` has flags instead: `--steps 8`). Files are YAML 1.2: `1:30`, `on` and `2026-01-01` are text, `3e-4`
is a number. In every path, `~`, `${NAME}` and `${NAME:-default}` are replaced when it is used, and kept as they were
written in what a run records. `--print-config` prints all settings as they would be used, and stops.

Where the key of a list's items is given, `[]` stands for the item. Sections have no default of their own.
"""


def document() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(markdown(title, cls) for title, cls in APPLICATIONS.items())])


if __name__ == "__main__":
    raise SystemExit(write_page(DOCUMENT, document(), "Write docs/configuration.md from the configuration classes."))
