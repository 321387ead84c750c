"""What is done to files of weights by their contents: names, types, shapes, layouts, odd members, code that must not run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutators import TEXTS
from safetensors.torch import save_file

Rng = random.Random
Weights = dict[Any, Any]


class _Runs:
    """Runs a command where somebody unpickles it: the file it would write is looked for."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo x > ../outside/written",)


def damage_weights(path: Path, weights: Weights, rng: Rng) -> str:
    """Write a file of other weights to a path; gives what they are."""
    if rng.random() < 0.15:
        return _odd_file(path, rng)
    told = [rng.choice(_WAYS)(weights, rng) for _ in range(rng.choice((1, 1, 2)))]
    if path.suffix == ".safetensors":
        plain = {
            key: value for key, value in weights.items() if isinstance(key, str) and isinstance(value, torch.Tensor)
        }
        try:
            save_file({key: value.clone() for key, value in plain.items()}, path)
            return "; ".join(told)
        except Exception:  # sparse, meta, quantised: only torch.save takes them
            path.unlink()
    wrapped = rng.choice(
        (
            lambda x: x,
            lambda x: x,
            lambda x: {"state_dict": x},
            lambda x: [x],
            lambda x: {"model": x, "model_ema": dict(x)},
        )
    )
    try:
        torch.save(wrapped(weights), path)
    except Exception:
        torch.save(wrapped({str(key): torch.zeros(1) for key in weights}), path)
    return "; ".join(told)


def _key(weights: Weights, rng: Rng) -> Any:
    return rng.choice(list(weights)) if weights else "x"


def _value(weights: Weights, rng: Rng) -> str:
    name = _key(weights, rng)
    weights[name] = rng.choice(
        (
            None,
            0,
            10**400,
            "text",
            [],
            {},
            [torch.zeros(1)],
            torch.nn.Parameter(torch.zeros(3)),
            np.zeros(3),
            float("nan"),
            b"x",
            {1, 2},
            _Runs(),
        )
    )
    return f"{name} is a {type(weights[name]).__name__}"


def _kind(weights: Weights, rng: Rng) -> str:
    name = _key(weights, rng)
    value = weights.get(name)
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_meta or value.is_quantized:
        return "nothing"
    ways: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        lambda x: x.to(torch.float16), lambda x: x.to(torch.bfloat16), lambda x: x.to(torch.float64), lambda x: x.to(torch.int8), lambda x: x.bool(),
        lambda x: x.to(torch.complex64), lambda x: x.to(torch.float8_e4m3fn), lambda x: x.to_sparse(), lambda x: x.to("meta"),
        lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8), lambda x: x.float() * float("nan"), lambda x: x.float() * 1e38,
        lambda x: x * 0, lambda x: x.float() + float("inf"), lambda x: x.reshape(-1), lambda x: x.unsqueeze(0), lambda x: x[..., None],
        lambda x: x.new_zeros(0), lambda x: x.reshape(-1)[:1].expand(10**12), lambda x: torch.nested.nested_tensor([x.float().reshape(-1)]),
        lambda x: x.transpose(0, -1) if x.dim() else x, lambda x: x.reshape(-1)[:1].squeeze(), lambda x: x.float().requires_grad_(),
    )  # fmt: skip
    number = rng.randrange(len(ways))
    weights[name] = ways[number](value)
    return f"{name} by way {number}"


def _rename(weights: Weights, rng: Rng) -> str:
    name = _key(weights, rng)
    other = rng.choice(
        (*TEXTS[:20], 3, None, 1.5, (1, 2), True, f"module.{name}", f"{name}.", f".{name}", str(name).upper())
    )
    weights[other] = weights.pop(name, torch.zeros(1))
    return f"{name} is called {str(other)[:20]!r}"


def _prefix(weights: Weights, rng: Rng) -> str:
    prefix = rng.choice(("module.", "_orig_mod.", "model.", "ema.", "\x1b[31m.", "a.b.c.d.e.f.", ".", "module.module."))
    renamed = {f"{prefix}{key}": value for key, value in weights.items() if rng.random() < 0.95}
    weights.clear()
    weights.update(renamed)
    return f"under {prefix!r}"


def _delete(weights: Weights, rng: Rng) -> str:
    for name in rng.sample(list(weights), min(len(weights), rng.choice((1, 2, 100)))):
        del weights[name]
    return f"{len(weights)} left"


def _add(weights: Weights, rng: Rng) -> str:
    for number in range(rng.choice((1, 3, 500))):
        weights[f"more.{number}"] = torch.zeros(rng.choice((0, 1, 5)))
    return "more of them"


def _metadata(weights: Weights, rng: Rng) -> str:
    found = OrderedDict(weights)
    found._metadata = rng.choice(({"": {"version": "x"}}, {"": None}, [], {"": {"version": 10**9}}, {3: 4}))  # type: ignore[attr-defined]
    weights["_metadata"] = found._metadata  # type: ignore[attr-defined]
    weights["nested"] = found
    return "odd metadata"


def _cycle(weights: Weights, rng: Rng) -> str:
    weights["self"] = weights
    return "holds itself"


_WAYS = (_value, _kind, _kind, _kind, _kind, _rename, _rename, _prefix, _delete, _add, _metadata, _cycle)


def _odd_file(path: Path, rng: Rng) -> str:
    """A file that is something else, or claims more than there is."""
    found = {
        "safetensors, a header longer than the file": (2**40).to_bytes(8, "little") + b"{}",
        "safetensors, a header of nothing": (2).to_bytes(8, "little") + b"{}",
        "safetensors, offsets past the end": _header({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16000]}}),
        "safetensors, a shape of 2**62": _header({"x": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}}),
        "safetensors, negative": _header({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}),
        "safetensors, no type": _header({"x": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]}}),
        "safetensors, nested": (10**5).to_bytes(8, "little") + b'{"a":' * 20000,
        "JSON": b'{"a": 1}', "a web page": b"<!doctype html>", "gzip": b"\x1f\x8b\x08" + bytes(50), "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "an archive of nothing": _archive({}), "an archive of a text": _archive({"a.txt": b"x"}), "an archive that climbs": _archive({"../../outside/written": b"x"}),
        "an archive of a damaged pickle": _archive({"x/data.pkl": b"\x80\x02.", "x/version": b"3"}),
        "an archive of a pickle that runs": _archive({"x/data.pkl": _pickled(), "x/version": b"3"}), "a pickle that runs": _pickled(),
        "a pickle without end": b"\x80\x02" + b"(" * 10**6, "pickled memory": b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"x",
    }  # fmt: skip
    what = rng.choice(list(found))
    path.write_bytes(found[what])
    return what


def _header(document: Any) -> bytes:
    text = json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text + bytes(16)


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _pickled() -> bytes:
    return pickle.dumps(_Runs(), protocol=2)


def damage_arrays(path: Path, rng: Rng) -> str:
    """Change members of an .npz; gives what."""
    with np.load(path) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    name = rng.choice(list(arrays)) if arrays else "x"
    value = arrays.get(name, np.zeros(3))
    if rng.random() < 0.25:
        return _odd_archive(path, name, rng)
    ways: dict[str, Callable[[], Any]] = {
        "float64": lambda: value.astype(np.float64), "bool": lambda: value.astype(bool), "complex": lambda: value.astype(complex),
        "text": lambda: value.astype(str), "objects": lambda: np.array([_Runs(), None, 1], dtype=object), "NaN": lambda: np.full(value.shape, np.nan),
        "infinite": lambda: np.full(value.shape, np.inf), "one axis": lambda: value.reshape(-1), "another axis": lambda: value[None],
        "half of it": lambda: value[: len(value) // 2] if value.ndim else value, "empty": lambda: value[:0] if value.ndim else np.zeros(0),
        "no axis": lambda: np.array(3), "records": lambda: np.zeros(4, dtype=[("a", "f4"), ("b", "i4")]), "dates": lambda: np.zeros(16, "M8[s]"),
        "bytes": lambda: np.array([b"x"] * 16), "axes swapped": lambda: value.T, "int64": lambda: value.astype(float).astype(np.int64) - 2**40,
        "uint16": lambda: value.astype(np.uint16) * 257, "one pixel": lambda: np.zeros((16, 1, 1, 3), np.uint8), "other channels": lambda: np.zeros((16, 16, 16, 7), np.uint8),
        "a long row": lambda: np.zeros((16, 1, 20000, 3), np.uint8),
    }  # fmt: skip
    act = rng.choice((*ways, "deleted", "called otherwise", "an odd member"))
    if act == "deleted":
        arrays.pop(name, None)
    elif act == "called otherwise":
        arrays[rng.choice(("x", "../x", "/x", "x\x1b[31m", "file", "images2"))] = arrays.pop(name, value)
    elif act == "an odd member":
        arrays[f"more{rng.randrange(9)}"] = np.zeros(3)
    else:
        arrays[name] = ways[act]()
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return f"{name}: {act}"


def _odd_archive(path: Path, name: str, rng: Rng) -> str:
    head = "{{'descr': {}, 'fortran_order': False, 'shape': {}, }}".format
    shapes = {
        "claims 4 TB": head("'|u1'", "(4000000000000,)"), "claims 2**70": head("'<f4'", f"({2**70},)"), "negative": head("'<f4'", "(-5,)"),
        "no shape": head("'<f4'", "'x'"), "code": head("'<f4'", "__import__('os')"), "objects": head("'|O'", "(3,)"),
        "nested": head("'<f4'", "(" * 5000 + ")" * 5000), "no type": head("'zz'", "(1,)"), "a type of types": head("[('a', '<f4', (2**40,))]", "(1,)"),
    }  # fmt: skip
    what = rng.choice((*shapes, "no array", "an archive of nothing", "a single array", "a bomb"))
    if what in shapes:
        text = shapes[what].encode()
        member = b"\x93NUMPY\x02\x00" + (len(text) + 1).to_bytes(4, "little") + text + b"\n" + bytes(64)
        path.write_bytes(_archive({f"{name}.npy": member}))
    elif what == "a bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as file:
            text = head("'|u1'", "(300000, 32, 32, 3)").encode()
            file.write(b"\x93NUMPY\x02\x00" + (len(text) + 1).to_bytes(4, "little") + text + b"\n")
            for _ in range(900):
                file.write(bytes(1 << 20))
    elif what == "a single array":
        with open(path, "wb") as file:
            np.save(file, np.zeros((16, 16, 16, 3), np.uint8))
    else:
        path.write_bytes(_archive({} if what == "an archive of nothing" else {f"{name}.npy": b"text", "b.txt": b"x"}))
    return f"{name}: {what}"
