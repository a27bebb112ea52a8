#!/usr/bin/env bash
# A curriculum on every GPU of one machine, or of several that are started by hand.
#
#   one machine:      bash scripts/launch/torchrun.sh CONFIG [key=value ...]
#   several machines: on each of them, with the same CONFIG, code and data at the same paths,
#                     NODES=4 NODE_RANK=0..3 MASTER_ADDR=first-machine bash scripts/launch/torchrun.sh CONFIG
#
# NODES (1), NODE_RANK (0), MASTER_ADDR, MASTER_PORT (29500), PROCESSES (one per GPU; without a GPU one),
# OMP_NUM_THREADS (cores divided by processes).
# output_dir must lie on a disk that all machines see: rank 0 writes checkpoints there, and every rank reads them.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }

nodes=${NODES:-1}
gpus=$(command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus | wc -l || echo 0)
processes=${PROCESSES:-$((gpus > 0 ? gpus : 1))}
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}

if [ "$nodes" -eq 1 ]; then
    rendezvous=(--standalone)  # a free port of its own: two trainings on one machine do not meet
else
    [ -n "${MASTER_ADDR:-}" ] || { echo "MASTER_ADDR must name the first of the $nodes machines" >&2; exit 2; }
    [ -n "${NODE_RANK:-}" ] || { echo "NODE_RANK must be 0 on $MASTER_ADDR and 1 to $((nodes - 1)) elsewhere" >&2; exit 2; }
    rendezvous=(--nnodes="$nodes" --node_rank="$NODE_RANK" --master_addr="$MASTER_ADDR" --master_port="${MASTER_PORT:-29500}")
fi
exec "${PYTHON:-python}" -m torch.distributed.run "${rendezvous[@]}" --nproc_per_node="$processes" -m medvlm.train.run "$@"
