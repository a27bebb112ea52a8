#!/usr/bin/env bash
# The longer training on phantoms, at most an hour on two CPU cores: the model reads them well. Ends in
# runs/learn/report.html and runs/learn/summary.json. Run it again and it goes on where it stopped.
set -euo pipefail
began=$(date +%s)
source "$(dirname "$0")/environment.sh"
exec "$PYTHON" -m medvlm.scripts.journey configs/learn.yaml --patients 2900 --processes 2 --began "$began" "$@"
