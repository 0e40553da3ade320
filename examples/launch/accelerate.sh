#!/bin/sh
# The same by accelerate's launcher, for those who have a machine configured with it (NPROC processes, 8 by default).
# Only the launcher is accelerate's: precision, compiling and sharding are df-train's own settings.
#   NPROC=2 uv run examples/launch/accelerate.sh --config configs/train/grid.yaml
exec python -m accelerate.commands.launch --multi_gpu --num_processes "${NPROC:-8}" --num_machines 1 \
    --mixed_precision no --dynamo_backend no --module df_train.cli "$@"
