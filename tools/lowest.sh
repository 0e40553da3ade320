#!/usr/bin/env bash
# df-models' tests of everything that it takes from others, with the lowest versions that its pyproject.toml promises
# to work with, on Python 3.12 with torch 2.11: encoders, Wan, the saved form and the Hub. Some minutes on two cores.
# `tools/lowest.sh env` only makes the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-lowest
tools/python312.sh "$venv" --resolution lowest-direct -e 'packages/df-models[encoders,media,settings]' \
    'diffusers>=0.36' 'pytest>=8.3' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6' 'hypothesis>=6.100' 'scipy>=1.15'
[ "${1:-}" = env ] && exit 0
"$venv/bin/python" -m pytest -q packages/df-models/tests \
    -k 'encoder or wan_parity or checkpoint or hub or text or media or image' "$@"
