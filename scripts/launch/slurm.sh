#!/usr/bin/env bash
#SBATCH --job-name=medvlm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# A curriculum on the GPUs of several machines under slurm:
#
#   sbatch scripts/launch/slurm.sh CONFIG [key=value ...]        (from the repository, environment active)
#   sbatch --nodes=4 --gpus-per-node=4 scripts/launch/slurm.sh CONFIG engine.zero_stage=3 engine.precision=bf16
#
# One task per machine: slurm starts torchrun once on each, and torchrun starts one process per GPU. With one task per
# GPU each of them would start torchrun again. A job that is requeued goes on from the last saved state
# (stages.NAME.save_every sets how often one is saved). output_dir must lie on a disk that all machines see.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch scripts/launch/slurm.sh CONFIG [key=value ...]" >&2; exit 2; }
[ -n "${SLURM_JOB_ID:-}" ] || { echo "start this with sbatch; without slurm use scripts/launch/torchrun.sh" >&2; exit 2; }

machines=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${machines%%$'\n'*}  # not "| head": with pipefail a closed pipe would end this script
port=$((20000 + SLURM_JOB_ID % 20000))  # jobs that share a machine do not meet
processes=${SLURM_GPUS_ON_NODE:-1}
export OMP_NUM_THREADS=$(((${SLURM_CPUS_PER_TASK:-1} + processes - 1) / processes))

# The c10d rendezvous gives each machine its rank; its id keeps the attempts of other jobs out.
# The cores are named again because srun does not take them over from sbatch.
exec srun --kill-on-bad-exit=1 --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="$SLURM_NNODES" --nproc_per_node="$processes" \
    --rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="$first:$port" \
    -m medvlm.train.run "$@"
