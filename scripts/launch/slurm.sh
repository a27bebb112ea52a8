#!/usr/bin/env bash
#SBATCH --job-name=medvlm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# A curriculum on the GPUs of several machines under slurm:
#
#   sbatch scripts/launch/slurm.sh CONFIG [key=value ...]        (from the repository, environment active)
#   sbatch --nodes=4 --gpus-per-node=4 scripts/launch/slurm.sh CONFIG engine.zero_stage=3 engine.precision=bf16
#
# One task per machine: slurm starts torchrun once on each, and torchrun starts one process per GPU. With one task per
# GPU each of them would start torchrun again. output_dir must lie on a disk that all machines see.
#
# Five minutes before the time is up slurm sends USR1: the step is finished, the state saved, and the job goes back into
# the queue, where it goes on from there. A job that is preempted, or whose machine dies, is requeued by slurm itself and
# goes on from the last saved state (stages.NAME.save_every sets how often one is saved).
# RESTARTS (3): how often all processes start anew inside the job after one of them died.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch scripts/launch/slurm.sh CONFIG [key=value ...]" >&2; exit 2; }
[ -n "${SLURM_JOB_ID:-}" ] || { echo "start this with sbatch; without slurm use scripts/launch/torchrun.sh" >&2; exit 2; }

machines=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${machines%%$'\n'*}  # not "| head": with pipefail a closed pipe would end this script
port=$((20000 + SLURM_JOB_ID % 20000))  # jobs that share a machine do not meet
processes=${SLURM_GPUS_ON_NODE:-1}
export OMP_NUM_THREADS=$(((${SLURM_CPUS_PER_TASK:-1} + processes - 1) / processes))
# torchrun passes these signals on, and waits this long before it kills.
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240

asked=
stop() {
    asked=yes
    kill -USR1 "$child" 2>/dev/null || true  # srun passes it on to its tasks; at TERM it would end them
}
trap stop USR1
# The c10d rendezvous gives each machine its rank; its id keeps the attempts of other jobs out.
# The cores are named again because srun does not take them over from sbatch.
srun --kill-on-bad-exit=1 --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="$SLURM_NNODES" --nproc_per_node="$processes" --max_restarts="${RESTARTS:-3}" \
    --rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="$first:$port" \
    -m medvlm.train.run "$@" &
child=$!
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do  # a signal ends "wait", not the training
    code=0
    wait "$child" || code=$?
done
if [ -n "$asked" ] && [ "$code" -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    code=75
fi
exit "$code"
