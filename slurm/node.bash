#!/usr/bin/env bash
# On every node of a job, in the container where there is one: becomes the launcher of this node's ranks.
set -uo pipefail

refuse() { # refuse MESSAGE: the user's to mend, so the job is not requeued
  echo "error: $1" >&2
  echo '{"code": 2, "rank": -1}' >"$PHALANX_CAUSE_FILE"
  exit 2
}

if [[ $SLURM_NODEID == 0 && $SLURMD_NODENAME != "$PHALANX_HEAD" ]]; then
  refuse "rank 0 would run on $SLURMD_NODENAME and be looked for on $PHALANX_HEAD"
fi
cd "$PHALANX_DIRECTORY" || refuse "$SLURMD_NODENAME has no folder $PHALANX_DIRECTORY, where the command was typed"
trap 'refuse "cluster.setup failed on $SLURMD_NODENAME at: $BASH_COMMAND"' ERR
set +u # what a module or conda runs may count on unset variables
eval "$PHALANX_SETUP"
set -u
trap - ERR
# A heap of huge pages, unless somebody has set the allocator; a glibc before 2.35 passes over the word.
if [[ -z ${GLIBC_TUNABLES:-} && ${LD_PRELOAD:-} != *malloc* && -z $(compgen -e MALLOC_) ]]; then
  export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
fi
mapfile -d '' -t words <"$PHALANX_SUBMISSION/words"
if [[ $PHALANX_ENTRY == sweep ]]; then # a sweep's process starts the ranks of its trials itself
  launcher=("$PHALANX_PYTHON" "$PHALANX_CODE/phalanx" sweep "${words[@]}")
else
  [[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || words=("${words[@]//"%a"/$SLURM_ARRAY_TASK_ID}")
  launcher=("$PHALANX_PYTHON" -u "$PHALANX_CODE/phalanx" -m launch.local.agent)
  # Slurm signals the launcher alone: it hands on what it hears, and leaves the ranks the time to save.
  launcher+=(--ranks="$PHALANX_RANKS_PER_NODE" --grace="$PHALANX_NOTICE_S")
  if ((PHALANX_NODES > 1)); then
    launcher+=(--nodes="$PHALANX_NODES" --node="$SLURM_NODEID" --head="$PHALANX_HEAD" --port="$PHALANX_PORT")
  fi
  launcher+=("$PHALANX_CODE/phalanx/$PHALANX_ENTRY" "${words[@]}")
fi
shopt -s execfail
exec "${launcher[@]}" || refuse "$SLURMD_NODENAME cannot execute $PHALANX_PYTHON, the Python of where the command was typed"
