"""``python -m df_eval``: the command ``df-eval``."""

import sys

from df_eval.cli import main

if __name__ == "__main__":
    sys.exit(main())
