#!/usr/bin/env bash
# Third call: the suite, which packs what it finishes into $OUT as it goes.
#   bash scripts/gpu/3_suite.sh PROFILE MINUTES [arguments of stages.suite]
set -euo pipefail
source "$(dirname "$0")/environment.sh"
profile=$1 minutes=$2
shift 2
exec python3 -m stages.suite --profile "$profile" --minutes "$minutes" --out "${OUT:-.work/out}" "$@"
