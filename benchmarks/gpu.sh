#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command of at most nine minutes on one H100 or H200:
#
#   bash benchmarks/gpu.sh wheels    before, where there is a network: fetches what gpu_wheels.txt lists into .wheels
#   bash benchmarks/gpu.sh [DIR]     on the GPU machine, without one
#
# Needs Python 3.12 with torch 2.11 and numpy (PYTHON names another one than python3), pip, and .wheels (WHEELS names
# another folder). Writes into DIR (default: $OUT, or runs/gpu):
#
#   summary.txt    each part, how it ended and how long it took
#   report.md      the tables of the benchmarks, and results.jsonl their figures
#   figures.md     what the tests measured
#   log.txt        everything that was printed
#
# Each part has a budget of its own and its result is written when it ends, so that one that hangs costs only itself.
# GPU_REHEARSAL=1 runs every part on the CPU with its smallest sizes.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-${OUT:-runs/gpu}}
wheels=${WHEELS:-.wheels}
python=${PYTHON:-python3}
rehearsal=${GPU_REHEARSAL:-0}
limit=540 # seconds of all parts together
[ "$rehearsal" = 0 ] || limit=3600

if [ "${1:-}" = wheels ]; then
    platforms=(--platform=manylinux_2_28 --platform=manylinux_2_27 --platform=manylinux_2_17 --platform=manylinux2014
        --platform=manylinux1)
    rm -rf "$wheels"
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        "${platforms[@]/%/_x86_64}" -r benchmarks/gpu_wheels.txt -d "$wheels" || exit 3
    size=$(du -sm "$wheels" | cut -f1)
    echo "$wheels: $size MiB"
    [ "$size" -lt 60 ] # what a machine without a network is handed
    exit
fi

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in summary.txt report.md results.jsonl log.txt; do : >"$out/$name"; done
printf '<!-- figures: begin -->\n<!-- figures: end -->\n' >"$out/figures.md"
failed=0

# part NAME BUDGET COMMAND...: runs it under its budget; adds what it wrote into $work/NAME to the results
part() {
    local name=$1 budget=$2 began=$SECONDS left=$((limit - SECONDS)) code
    shift 2
    [ "$rehearsal" = 0 ] || budget=$left # other machines are slower
    [ "$left" -ge "$budget" ] || budget=$left
    if [ "$budget" -lt 5 ]; then
        echo "$name: left out, no time" | tee -a "$out/summary.txt"
        failed=1
        return
    fi
    printf '\n=== %s (at most %s s)\n' "$name" "$budget" | tee -a "$out/log.txt"
    timeout -k 5 "$budget" "$@" 2>&1 | tee -a "$out/log.txt"
    code=${PIPESTATUS[0]}
    for table in "$work/$name"/*.md; do
        [ -f "$table" ] && { cat "$table" && echo; } >>"$out/report.md"
    done
    for figures in "$work/$name"/*.json; do
        [ -f "$figures" ] && "$python" -m json.tool --compact "$figures" >>"$out/results.jsonl"
    done
    case $code in
    0) echo "$name: done in $((SECONDS - began)) s" ;;
    124 | 137) echo "$name: stopped after its $budget s" ;;
    *) echo "$name: failed (exit code $code) after $((SECONDS - began)) s" ;;
    esac | tee -a "$out/summary.txt"
    [ "$code" = 0 ] || failed=1
}

# bench NAME BUDGET SCRIPT ARGUMENT...
bench() {
    local name=$1 budget=$2 script=$3
    shift 3
    part "$name" "$budget" "$python" "benchmarks/$script.py" --device "$device" --out "$work/$name" "$@"
}

# A wheel is an archive of what belongs on the path; pip would also compile some thousand files that are never read.
unpack='import sys, zipfile; [zipfile.ZipFile(wheel).extractall(sys.argv[1]) for wheel in sys.argv[2:]]'
export PYTHONPATH="$work/site" PYTHONUNBUFFERED=1
part wheels 100 "$python" -c "$unpack" "$work/site" "$wheels"/*.whl
[ "$failed" = 0 ] || exit 3
part packages 100 "$python" -m pip install -q --no-index --no-deps --no-compile --no-build-isolation --no-cache-dir \
    --disable-pip-version-check --root-user-action ignore --target "$work/site" packages/*/
[ "$failed" = 0 ] || exit 3

tests=(-m gpu -o addopts= --import-mode=importlib -p no:cacheprovider -v --figures "$out/figures.md"
    packages/df-{models,train}/tests/test_gpu.py) # others need more packages
if [ "$rehearsal" = 1 ]; then
    device=cpu
    part tests 600 "$python" -m pytest -n 2 --timeout 240 "${tests[@]}"
    bench video-tower 600 video_tower --preset quickstart --layers 1 --frames 2 --size 32 --repeats 1 --dtype float32
    bench training-step 600 training_step --preset quickstart --batch 2 --frames 3 --repeats 2 --checkpointing
    bench live 600 live --preset quickstart --steps 1 --frames 4
    bench generation 600 generation --preset quickstart --steps 1 --repeats 1 --lengths 9 13 --contexts 2 3
else
    device=cuda
    # what matters most comes first: a part for which no time is left is left out
    part tests 170 "$python" -m pytest -n 8 --timeout 100 "${tests[@]}"
    bench training-1.5b 110 training_step --preset dualforce-1.5b --batch 2 --size 512 --checkpointing --against ways
    bench memory-1.5b 60 training_step --preset dualforce-1.5b --batch 1 --frames 33 --size 512 --checkpointing \
        --against nothing --repeats 2
    bench live-wan 100 live --preset dualforce-wan --size 512 --steps 20 --copies 1 --window 8 --frames 12
    bench training-poc 60 training_step --preset poc --batch 8 --frames 9 --size 256 --compile
    bench generation 60 generation --preset poc --size 256 --repeats 3 --lengths 33 129 --contexts 9 33
    bench video-tower 50 video_tower --layers 8 --frames 9 --size 256 --compile
    bench training-quickstart 40 training_step --preset quickstart --batch 16 --frames 9
    bench generation-quickstart 60 generation --preset quickstart --repeats 3
fi
printf '\n=== summary\n'
cat "$out/summary.txt"
exit "$failed"
