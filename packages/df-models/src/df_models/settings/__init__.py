"""Configuration of the applications: frozen pydantic models, YAML 1.2 files, dotted overrides.

The value of every key comes from, in rising order of strength: the defaults of the model class, the YAML file named
by `extends:`, the YAML file itself, the overrides of the command line (`optim.lr=3e-4`).

Needs the extra `df-models[settings]`; `import df_models` does not load it.
"""

from df_models.paths import expand_path, expand_variables
from df_models.settings.base import FrozenModel, Location
from df_models.settings.command import add_flags, add_print_config, config_from_flags
from df_models.settings.keys import all_keys
from df_models.settings.load import dump_config, load_config, validate_config
from df_models.settings.text import parse_yaml
from df_models.settings.tree import merge, read_tree

__all__ = [
    "FrozenModel",
    "Location",
    "add_flags",
    "add_print_config",
    "all_keys",
    "config_from_flags",
    "dump_config",
    "expand_path",
    "expand_variables",
    "load_config",
    "merge",
    "parse_yaml",
    "read_tree",
    "validate_config",
]
