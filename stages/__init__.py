"""The pipeline's scripts, one a stage. Importing the package comes before torch, which reads these settings once.

Threads that wait by spinning take the cores from those that work, wherever a core is shared (a virtual machine, two
runs at once): training the small models on two threads was 4.4 times slower so. It changes no number.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
