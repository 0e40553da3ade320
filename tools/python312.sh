#!/usr/bin/env bash
# Makes an environment of Python 3.12 with torch 2.11, the oldest that the packages promise to work with there.
#
#   tools/python312.sh DIR [REQUIREMENT or option of `uv pip install`]...
#
# E.g. `tools/python312.sh .venv-312` (torch and numpy alone, like a bare GPU machine), or
# `tools/python312.sh .venv-lowest --resolution lowest-direct -e packages/df-models[encoders]`.
# An environment that was made with the same arguments is kept. Needs uv; about a minute if nothing is cached.
set -euo pipefail
dir=$1
shift
wanted="torch==2.11.* numpy $*"
[ -f "$dir/made-with" ] && [ "$(cat "$dir/made-with")" = "$wanted" ] && exit 0

find_python() {
    uv python find --no-python-downloads 3.12 2>/dev/null && return
    # pyenv's shim of a version that is not switched on finds nothing: look where it keeps them
    for python in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python3.12; do
        [ -x "$python" ] && echo "$python" && return
    done
    uv python install -q 3.12 && uv python find 3.12
}

uv venv -q --clear --python "$(find_python)" "$dir"
uv pip install -q --python "$dir/bin/python" 'torch==2.11.*' numpy "$@"
echo "$wanted" >"$dir/made-with"
