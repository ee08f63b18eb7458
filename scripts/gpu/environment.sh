# Sourced by the other scripts. The Python of .work/env, where 1_install.sh made one, else the one that is active.
# Results are made in .work/run, a copy of the tree (2_data.sh): what git does not ignore, a next call may lay anew.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH=$PWD/.work/env/bin:$PATH MLFLOW_TRACKING_URI=none
