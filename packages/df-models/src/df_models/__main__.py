"""``python -m df_models``: the command ``df-models``."""

import sys

from df_models.cli import main

if __name__ == "__main__":
    sys.exit(main())
