#!/usr/bin/env bash
# Further calls: the next parts, weights above all.
#   bash scripts/gpu/4_more.sh PROFILE FIRST_PART
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec python3 -m stages.pack --profile "$1" --first "$2" --parts 4 --out "${OUT:-.work/out}"
