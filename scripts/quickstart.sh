#!/usr/bin/env bash
# From nothing to runs/quickstart/report.html in at most 15 minutes on two CPU cores: environment, phantoms, five
# stages under DeepSpeed with two processes, evaluation with controls. Run it again and it goes on where it stopped.
set -euo pipefail
began=$(date +%s)
source "$(dirname "$0")/environment.sh"
exec "$PYTHON" -m medvlm.scripts.journey configs/quickstart.yaml --patients 1100 --processes 2 --began "$began" "$@"
