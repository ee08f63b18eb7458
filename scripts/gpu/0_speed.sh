#!/usr/bin/env bash
# A visit of its own, before the others: whether graphs are captured there, and how fast each row trains. Needs no data,
# and among the wheels tabulate.
#   bash scripts/gpu/0_speed.sh SECONDS_A_ROW JOBS [arguments of benchmarks.training_speed]
set -euo pipefail
bash "$(dirname "$0")/1_install.sh"
source "$(dirname "$0")/environment.sh"
seconds=$1 jobs=$2 out=${OUT:-.work/out}
shift 2
mkdir -p "$out"
python3 -m pytest -q --noconftest -p no:cacheprovider tests/engine/test_graphed.py >"$out/graphed.txt" 2>&1 &
python3 -m benchmarks.training_speed --seconds "$seconds" --jobs "$jobs" --output "$out/speed.md" "$@" 2>&1 | tee "$out/speed.log"
wait
tail -n 30 "$out/graphed.txt"
