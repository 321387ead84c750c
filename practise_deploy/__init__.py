"""practise-deploy: a pretrained network made faster on its device from a handful of images."""

import os

__version__ = "0.1.0"

# Read once, when torch is loaded: its idle threads sleep instead of spinning. Spinning ones disturb the engine that is
# being measured beside them, and on a busy machine make every parallel section wait for a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
