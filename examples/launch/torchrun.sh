#!/bin/sh
# As many processes as this machine has GPUs (or NPROC). When one fails, all begin again from the last checkpoint, at
# most 3 times. A scheduler's signal is passed on, after which torchrun waits 30 s.
#   examples/launch/torchrun.sh --config configs/train/grid.yaml checkpoint.asynchronous=true
exec python -m torch.distributed.run --standalone --nproc-per-node "${NPROC:-gpu}" --max-restarts 3 \
    --signals-to-handle SIGTERM,SIGINT,SIGUSR1 -m df_train.cli "$@"
