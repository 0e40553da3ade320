#!/bin/sh
# As many processes as this machine has GPUs (or NPROC). When one fails, all begin again from the last checkpoint, at
# most 3 times; a mistake in the config is told once, before. A scheduler's signal is passed on, after which torchrun waits
# 30 s.
#   uv run examples/launch/torchrun.sh --config configs/train/grid.yaml checkpoint.asynchronous=true
if [ -z "$NPROC" ] && ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "$0: no GPU is here; say how many processes, such as NPROC=2, and device=cpu" >&2
    exit 3
fi
python -m df_train.cli --check "$@" || exit
exec python -m torch.distributed.run --standalone --nproc-per-node "${NPROC:-gpu}" --max-restarts 3 \
    --signals-to-handle SIGTERM,SIGINT,SIGUSR1 -m df_train.cli "$@"
