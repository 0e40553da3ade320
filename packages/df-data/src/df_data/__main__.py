"""``python -m df_data``: the command ``df-data``."""

import sys

from df_data.cli import main

if __name__ == "__main__":
    sys.exit(main())
