#!/usr/bin/env bash
# First call: the wheels go into a folder of the tree that git ignores; says what the machine is.
set -euo pipefail
cd "$(dirname "$0")/../.."
python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target .work/site .work/wheels/*.whl
export PYTHONPATH=$PWD/.work/site MLFLOW_TRACKING_URI=none
nvidia-smi || true
python3 - <<'PYTHON'
import time, torch
import constriction, jinja2, matplotlib, numpy, pandas, pydantic, safetensors, tqdm, yaml
print("torch", torch.__version__, "numpy", numpy.__version__, "pydantic", pydantic.__version__, "CUDA", torch.cuda.is_available())
if torch.cuda.is_available():
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for number in range(2):
        torch.cuda.synchronize()
        began = time.monotonic()
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()
        print(f"bfloat16 product: {20 * 2 * 8192**3 / (time.monotonic() - began) / 1e12:.0f} TFLOP/s")
PYTHON
