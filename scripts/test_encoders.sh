#!/usr/bin/env bash
# The tests that need timm and open_clip; the arguments go to pytest. They live in an environment of their own,
# .venv-encoders, on top of the usual one: torchvision, which both import, breaks transformers on a CPU build of torch
# unless medvlm.model is imported first. MEDVLM_ENCODERS_PYTHON=/path/to/python chooses one and installs nothing.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
if [ -z "${MEDVLM_ENCODERS_PYTHON:-}" ]; then
    MEDVLM_ENCODERS_PYTHON=.venv-encoders/bin/python
    if ! "$MEDVLM_ENCODERS_PYTHON" -c 'import torch, importlib.util as u; assert u.find_spec("open_clip")' 2>/dev/null; then
        rm -rf .venv-encoders
        "$PYTHON" -m venv .venv-encoders
        site=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        own=$("$MEDVLM_ENCODERS_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        printf 'import site; site.addsitedir(%s)\n' "'$site'" > "$own/medvlm.pth"
        "$MEDVLM_ENCODERS_PYTHON" -m pip install -q --disable-pip-version-check -c constraints.txt timm open_clip_torch torchvision
    fi
fi
export OMP_NUM_THREADS=1 MEDVLM_TESTS=1
exec "$MEDVLM_ENCODERS_PYTHON" -m pytest -n auto --dist worksteal tests/model/test_pretrained.py tests/model/test_pretrained_libraries.py "$@"
