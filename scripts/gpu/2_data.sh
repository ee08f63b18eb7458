#!/usr/bin/env bash
# Second call: builds and hashes the arrays, checks params.yaml, and takes one row through all its stages.
#   bash scripts/gpu/2_data.sh [PROFILE] [MINUTES] [arguments of stages.suite]
set -euo pipefail
source "$(dirname "$0")/environment.sh"
profile=${1:-gpu} minutes=${2:-0.5}
shift $(($# < 2 ? $# : 2))
python3 -m stages.download --local-path .work/cifar10
python3 -m stages.check
python3 -m stages.suite --profile "$profile" --minutes "$minutes" --models nice "$@"
