#!/usr/bin/env bash
#SBATCH --job-name=hyperscale
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
# A Ray cluster over the nodes of a Slurm job, and a run on it. The results folder lies on a file system that outlives
# the job; only the first node writes there. Submit the same file again to go on where the time was up:
#   sbatch docs/cluster/slurm.sh --model qwen-r1-32b --method vanilla,dms --budget 8x --tensor-parallel 2
set -euo pipefail

venv=${HYPERSCALE_VENV:-$HOME/hyperscale/.venv} # the same path on every node, with hyperscale-kv[ray,vllm] in it
results=${HYPERSCALE_RESULTS:-$HOME/results}
source "$venv/bin/activate"

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=6379

srun --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --node-ip-address="$address" --port="$port" --block &
sleep 10
if [ "${#nodes[@]}" -gt 1 ]; then
  srun --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --exclude="$head" \
    ray start --address="$address:$port" --block &
fi

# The run is given what the cluster has when it starts: wait until every node is in it.
until [ "$(ray status --address="$address:$port" 2>/dev/null | grep -c 'node_')" -ge "${#nodes[@]}" ]; do sleep 5; done

cd "$(dirname "$results")"
hyperscale run --executor ray --address "$address:$port" "$@"
