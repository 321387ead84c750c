#!/usr/bin/env bash
# Do the two images of Dockerfile.gpu work on this machine? A few minutes; the images must be built.
#
#   tests/gpu/smoke.sh [DEPLOY_IMAGE [DEVICE_IMAGE]]
#
# ENGINE=podman   another container engine
# GPUS="..."      what gives a container its GPUs (default: --gpus all; podman: --device nvidia.com/gpu=all;
#                 Jetson: --runtime nvidia)
# BACKEND=ort     without a GPU: all but TensorRT
set -euo pipefail

deploy=${1:-practise-deploy}
device=${2:-practise-measure}
engine=${ENGINE:-docker}
backend=${BACKEND:-trt}
gpus=${GPUS-"--gpus all"}
[ "$backend" != ort ] || gpus=

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
as_me=(--user "$(id -u):$(id -g)" -v "$place:/work")

step() { echo "== $*" >&2; }
in_container() {
    # shellcheck disable=SC2086  # several words
    "$engine" run --rm $gpus "$@"
}
measured() { # 1: measured, but the promise was not surely kept: so small a network may not become faster on a large GPU
    "$@" || [ $? -eq 1 ]
}

for image in "$deploy" "$device"; do
    step "$image: the user is not root"
    user=$(in_container --entrypoint python "$image" -c "import os; print(os.getuid())")
    [ "$user" != 0 ]
    step "$image: $backend can be used"
    in_container "$image" doctor --backend "$backend"
done

step "$deploy: a build, as the user who calls, in a mounted folder"
measured in_container "${as_me[@]}" "$deploy" build digits --backend "$backend" --out run \
    --drop 2 --iterations 20 --measure-budget-s 10 --no-frontier --keep-throttled
for file in model.onnx original.onnx release.json report.html; do
    [ -O "$place/run/$file" ]
done

step "$device: both networks in paired rounds"
measured in_container "${as_me[@]}" "$device" compare run/original.onnx run/model.onnx \
    --backend "$backend" --measure-budget-s 10 --keep-throttled

echo "both images work with $backend"
