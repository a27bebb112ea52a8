#!/usr/bin/env bash
# The tests, on every core; the arguments go to pytest: bash scripts/test.sh -k dicom
set -euo pipefail
source "$(dirname "$0")/environment.sh"
export OMP_NUM_THREADS=1 MEDVLM_TESTS=1
exec "$PYTHON" -m pytest -n auto --dist worksteal "$@"
