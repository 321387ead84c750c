#!/usr/bin/env bash
# The tests of this folder on a machine without a GPU, with a stand-in for the driver and for TensorRT: it shows whether the
# tests themselves and all that lies around TensorRT work, and nothing about TensorRT. Takes gcc, nm and pycuda.
#
#   tests/gpu/without_a_gpu.sh [words for pytest]
set -euo pipefail

tests=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
PYTHONPATH=$tests${PYTHONPATH:+:$PYTHONPATH} python -m standin "$place"
PYTHONPATH=$tests/standin${PYTHONPATH:+:$PYTHONPATH} LD_LIBRARY_PATH=$place${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    python -m pytest -m gpu "$tests/gpu" -p no:cacheprovider "$@"
