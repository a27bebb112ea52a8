#!/usr/bin/env bash
# A curriculum on every GPU of one machine, or of several that are started by hand or by a scheduler.
#
#   one machine:      bash scripts/launch/torchrun.sh CONFIG [key=value ...]
#   several machines: the same line on each of them, with the same CONFIG, code and data at the same paths:
#                     NODES=4 RENDEZVOUS=first-machine:29500 bash scripts/launch/torchrun.sh CONFIG
#
# NODES (1); RENDEZVOUS, host and port of any one of the machines, where they meet and get their ranks; RUN_ID (medvlm),
# which keeps trainings that meet at one port apart; RESTARTS (0 on one machine, else 3): how often all processes start
# anew, from the last saved state, after one of them died; PROCESSES (one per GPU; without a GPU one);
# OMP_NUM_THREADS (cores divided by processes); GRACE_SECONDS (240) that a state has to be saved in after a signal.
# output_dir must lie on a disk that all machines see: rank 0 writes checkpoints there, and every rank reads them.
#
# SIGTERM, SIGINT or SIGUSR1 to this script finishes the step, saves and ends with 75: run the same line again.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }

nodes=${NODES:-1}
gpus=$(command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus | wc -l || echo 0)
processes=${PROCESSES:-$((gpus > 0 ? gpus : 1))}
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}
# torchrun passes these signals on, and waits this long before it kills.
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${GRACE_SECONDS:-240}

if [ "$nodes" -eq 1 ]; then
    rendezvous=(--standalone --max_restarts="${RESTARTS:-0}")  # a free port of its own: two trainings do not meet
else
    [ -n "${RENDEZVOUS:-}" ] || { echo "RENDEZVOUS must be HOST:PORT of one of the $nodes machines, the same on all" >&2; exit 2; }
    rendezvous=(--nnodes="$nodes" --rdzv_backend=c10d --rdzv_endpoint="$RENDEZVOUS" --rdzv_id="${RUN_ID:-medvlm}"
        --max_restarts="${RESTARTS:-3}")
fi

asked=
stop() {
    asked=yes
    kill -TERM "$child" 2>/dev/null || true
}
trap stop TERM INT USR1
"${PYTHON:-python}" -m torch.distributed.run "${rendezvous[@]}" --nproc_per_node="$processes" -m medvlm.train.run "$@" &
child=$!
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do  # a signal ends "wait", not the training
    code=0
    wait "$child" || code=$?
done
# torchrun ends with 1 whatever its processes ended with.
[ -z "$asked" ] || [ "$code" -eq 0 ] || code=75
exit "$code"
