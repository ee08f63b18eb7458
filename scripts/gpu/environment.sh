# Sourced by the other scripts. The Python of .work/env, where 1_install.sh made one, else the one that is active.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH=$PWD/.work/env/bin:$PATH MLFLOW_TRACKING_URI=none
