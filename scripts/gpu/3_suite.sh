#!/usr/bin/env bash
# Third call: starts the suite as a session of its own, which outlives the call, waits for its end, or WAIT seconds, and
# leaves the parts that are packed by then in $OUT.
#   [WAIT=60] bash scripts/gpu/3_suite.sh PROFILE MINUTES [arguments of stages.suite]
set -euo pipefail
source "$(dirname "$0")/environment.sh"
profile=$1 minutes=$2
shift 2
cd .work/run
rm -rf .work/parts
mkdir -p .work/parts
setsid nohup python3 -m stages.suite --profile "$profile" --minutes "$minutes" --out "$PWD/.work/parts" "$@" >.work/suite.log 2>&1 &
for ((second = 0; second < ${WAIT:-36000}; second++)); do
    kill -0 $! 2>/dev/null || break
    sleep 1
done
cat .work/suite.log
mkdir -p "${OUT:-.work/out}"
find .work/parts -name 'results_*.zip' -exec cp {} "${OUT:-.work/out}" \;
