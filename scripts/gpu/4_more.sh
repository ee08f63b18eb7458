#!/usr/bin/env bash
# Further calls, also while the suite runs: what it says so far, after WAIT seconds, and four parts, weights above all.
#   [WAIT=60] bash scripts/gpu/4_more.sh PROFILE FIRST_PART
set -euo pipefail
source "$(dirname "$0")/environment.sh"
cd .work/run
sleep "${WAIT:-0}"
cat .work/suite.log
exec python3 -m stages.pack --profile "$1" --first "$2" --parts 4 --out "${OUT:-.work/out}"
