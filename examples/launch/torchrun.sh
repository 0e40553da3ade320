#!/bin/sh
# As many processes as this machine has GPUs (or NPROC). When one fails, all begin again from the last checkpoint, at
# most 3 times; a mistake in the config is told once, before. A scheduler's signal is passed on, after which torchrun waits
# 30 s.
#   uv run examples/launch/torchrun.sh --config configs/train/grid.yaml checkpoint.asynchronous=true
why=$(python -c '
import sys
try:
    import torch, df_train
except (ImportError, OSError) as error:  # OSError: a library of CUDA that does not load
    print(error)
    sys.exit(2)
sys.exit(0 if torch.cuda.is_available() else 4)' 2>/dev/null)
case $? in
    0) ;;
    4) if [ -z "$NPROC" ]; then
            echo "$0: no GPU is here; say how many processes, such as NPROC=2, and device=cpu" >&2
            exit 3
        fi ;;
    *)
        echo "$0: this Python has no df-train with PyTorch${why:+ ($why)}; in the workspace say: uv run $0 ..." >&2
        exit 3 ;;
esac
python -m df_train.cli --check "$@" || exit
exec python -m torch.distributed.run --standalone --nproc-per-node "${NPROC:-gpu}" --max-restarts 3 \
    --signals-to-handle SIGTERM,SIGINT,SIGUSR1 -m df_train.cli "$@"
