"""``python -m df_infer``: the command ``df-infer``."""

import sys

from df_infer.cli import main

if __name__ == "__main__":
    sys.exit(main())
