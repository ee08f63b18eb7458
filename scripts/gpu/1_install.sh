#!/usr/bin/env bash
# First call: the wheels go into a virtual environment that sees the machine's packages, .work/env, or into the one that
# is active; says what the machine is. No PYTHONPATH: the process that decodes a compressed file does not inherit it.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
if ! python3 -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)'; then
    python3 -m venv --without-pip --system-site-packages .work/env
    hash -r
fi
python3 -m pip --python "$(command -v python3)" install -q --no-index --no-deps --no-compile --upgrade .work/wheels/*.whl
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
