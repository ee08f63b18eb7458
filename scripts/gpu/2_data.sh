#!/usr/bin/env bash
# Second call: copies the tree to .work/run, builds and hashes the arrays, checks params.yaml, and takes one row through
# all its stages. Edited something? Give this call again.
#   bash scripts/gpu/2_data.sh [PROFILE] [MINUTES] [arguments of stages.suite]
set -euo pipefail
source "$(dirname "$0")/environment.sh"
profile=${1:-gpu} minutes=${2:-0.7}
shift $(($# < 2 ? $# : 2))
data=$PWD/.work/cifar10
rm -rf .work/run
mkdir -p .work/run
tar --exclude=./.work --exclude=./.git -cf - . | tar -xf - -C .work/run
cd .work/run
python3 -m stages.download --local-path "$data"
python3 -m stages.check
python3 -m stages.suite --profile "$profile" --minutes "$minutes" --models nice "$@"
