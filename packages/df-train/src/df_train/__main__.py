"""``python -m df_train``: the command ``df-train``."""

import sys

from df_train.cli import main

if __name__ == "__main__":
    sys.exit(main())
