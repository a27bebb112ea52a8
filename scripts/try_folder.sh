#!/usr/bin/env bash
# Any folder of mixed clinical files -> samples, a few steps of every stage, an evaluation, OUT/report.html.
#   bash scripts/try_folder.sh FOLDER OUT [--steps N]
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,3s/^# *//p' "$0" >&2; exit 2; }
folder=$(realpath -m "$1") out=$(realpath -m "$2")
shift 2
source "$(dirname "$0")/environment.sh"
exec "$PYTHON" -m medvlm.scripts.try_folder "$folder" "$out" "$@"
