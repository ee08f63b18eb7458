"""The pipeline's scripts, one per stage. Importing the package comes before torch, which reads these settings once.

OMP_WAIT_POLICY: threads that wait by spinning take the cores from those that work, wherever a core is shared (a virtual
machine, two runs at once): training the small models on two threads was 4.4 times slower so.
THP_MEM_ALLOC_ENABLE: large tensors on huge pages. Logits of 256 levels are arrays of tens of megabytes, and the system
otherwise hands them out page by page: scoring a PixelCNN took twice the time so. Neither changes a number.

A signal that comes while torch is imported, seconds before a stage begins, ends it with one line too.
"""

import os
import sys

from dgm.runs.termination import end_at_once

if sys.argv[:1] == ["-m"]:  # what Python says while it looks for the module of `python -m stages.NAME`
    end_at_once()
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
