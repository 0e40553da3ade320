#!/bin/sh
# One process, on a GPU if there is one:
#   uv run examples/launch/plain.sh --config configs/train/quickstart.yaml name=mine
exec python -m df_train.cli "$@"
