"""What is done to bytes, to documents and to the places of files, by a generator that is seeded: the same number, the same damage."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomllib

Rng = random.Random
_DEEP = 100_000

TEXTS = (
    "", " ", "none", "null", "nan", "inf", "-1", "0", "../../outside/secret.txt", "/etc/hostname", "/dev/zero", "/dev/stdin", ".", "..",
    "https://example.org/x", "file:///etc/hostname", "a\0b", "\x1b[31mred\x1b[0m\x07", "\u202egnp.exe", "line\nerror: forged", "\udcff", "\ud800",
    "x" * 5000, "é́", "😀", "{0}", "%s%n", "<script>alert(1)</script>", "';--", "C:\\x", "trt", "fake", "int8", "digits",
    "torchvision:nothing", "nets.py", "nets.py:nothing", "nets.py:torch", "timm:", "plain.onnx", "\uff11\uff12", "1_000", "0x10", "1e999",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 7, 100, 2**31, 2**32, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), -float("inf"),
)  # fmt: skip


def odd_value(rng: Rng) -> Any:
    """Something that a document may hold and nobody expects there."""
    return rng.choice(
        (
            lambda: rng.choice(TEXTS),
            lambda: rng.choice(NUMBERS),
            lambda: rng.choice((None, True, False)),
            lambda: rng.choice(([], {}, [[]], [{}], {"": {}}, [None], [0, "x", None], {"a": 1}, [1] * 1000)),
            lambda: nested(rng.choice((5, 50, 150))),
        )
    )()


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    found: Any = 0
    for _ in range(depth):
        found = [found]
    return found


def damage(content: bytes, rng: Rng) -> tuple[bytes, str]:
    """Bytes with something done to them, and what."""
    how = rng.choice((_flip, _flip, _flip, _cut, _cut, _delete, _repeat, _zero, _noise, _swap, _nothing, _all_noise))
    return how(content, rng) if content else (rng.randbytes(20), "noise instead of nothing")


def _flip(content: bytes, rng: Rng) -> tuple[bytes, str]:
    found, count = bytearray(content), rng.choice((1, 1, 2, 8, 64))
    for _ in range(count):
        found[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(found), f"{count} bits flipped"


def _place(content: bytes, rng: Rng) -> int:
    """A place in it; every other time near one of the ends, where the headers are."""
    near = min(len(content), 200)
    return rng.choice(
        (
            rng.randrange(len(content)),
            rng.randrange(len(content)),
            rng.randrange(near),
            len(content) - 1 - rng.randrange(near),
        )
    )


def _slice(content: bytes, rng: Rng) -> tuple[int, int]:
    start = _place(content, rng)
    return start, min(len(content), start + rng.choice((1, 4, 16, 256, len(content) // 4 + 1)))


def _cut(content: bytes, rng: Rng) -> tuple[bytes, str]:
    at = _place(content, rng)
    return content[:at], f"cut after {at} of {len(content)} bytes"


def _delete(content: bytes, rng: Rng) -> tuple[bytes, str]:
    start, end = _slice(content, rng)
    return content[:start] + content[end:], f"bytes {start} to {end} deleted"


def _repeat(content: bytes, rng: Rng) -> tuple[bytes, str]:
    start, end = _slice(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 2, 50)) + content[
        end:
    ], f"bytes {start} to {end} repeated"


def _zero(content: bytes, rng: Rng) -> tuple[bytes, str]:
    start, end = _slice(content, rng)
    return content[:start] + bytes(end - start) + content[end:], f"bytes {start} to {end} zeroed"


def _noise(content: bytes, rng: Rng) -> tuple[bytes, str]:
    start, end = _slice(content, rng)
    return content[:start] + rng.randbytes(end - start) + content[end:], f"noise in bytes {start} to {end}"


def _swap(content: bytes, rng: Rng) -> tuple[bytes, str]:
    at = _place(content, rng)
    return content[at:] + content[:at], f"what follows byte {at} put first"


def _nothing(content: bytes, rng: Rng) -> tuple[bytes, str]:
    return b"", "emptied"


def _all_noise(content: bytes, rng: Rng) -> tuple[bytes, str]:
    return rng.randbytes(len(content) % 5000), "noise alone"


def damage_document(document: Any, rng: Rng) -> tuple[Any, str]:
    """A document with one to three of its values, keys or members changed, and what was done."""
    told = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document, what = _changed(document, rng)
        told.append(what)
    return document, "; ".join(told)


def _changed(document: Any, rng: Rng) -> tuple[Any, str]:
    places = list(_places(document, ()))
    if not places:
        return odd_value(rng), "the whole document replaced"
    place = rng.choice(places)
    holder: Any = document
    for key in place[:-1]:
        holder = holder[key]
    last, where = place[-1], "/".join(map(str, place))
    act = rng.choice(("odd", "odd", "odd", "near", "delete", "add", "other", "wrap"))
    if act == "delete":
        del holder[last]
    elif act == "add" and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = odd_value(rng)
    elif act == "add":
        holder.insert(rng.randrange(len(holder) + 1), odd_value(rng))
    elif act == "near":
        holder[last] = _near(holder[last], rng)
    elif act == "other":
        holder[last] = _value_at(document, rng.choice(places))
    elif act == "wrap":
        holder[last] = rng.choice(([holder[last]], {"x": holder[last]}, str(holder[last])))
    else:
        holder[last] = odd_value(rng)
    return document, f"{act} {where}"


def _near(value: Any, rng: Rng) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice((-value, value + 1, value * 1000, 0 * value, value / 3))
    if isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        return rng.choice(
            (
                value[:at],
                value + value,
                value.upper(),
                value[:at] + "\x1b[2J" + value[at:],
                value[:at] + "/../" + value[at:],
            )
        )
    return value


def _value_at(document: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        document = document[key]
    return json.loads(json.dumps(document))


def _places(document: Any, place: tuple[Any, ...]) -> Any:
    members = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(members)[:200]:
        yield (*place, key)
        yield from _places(value, (*place, key))


def damage_text(text: str, rng: Rng, kind: str = "json") -> tuple[bytes, str]:
    """A document's text, damaged as a document (mostly), as a text, or as bytes. kind: json or toml."""
    act = rng.choice(("document",) * 7 + ("bytes",) * 2 + ("text",))
    if act == "bytes":
        return damage(text.encode(), rng)
    if act == "text":
        how, what = rng.choice(_TEXT)
        return how(text).encode("utf-8", "surrogatepass"), what
    document = json.loads(text) if kind == "json" else tomllib.loads(text)
    found, what = damage_document(document, rng)
    written = json.dumps(found, ensure_ascii=rng.random() < 0.5) if kind == "json" else _toml(found)
    return written.encode("utf-8", "surrogatepass"), what


def _toml(document: Any) -> str:
    if not isinstance(document, dict):
        return f"x = {json.dumps(document)}"
    return "".join(f"{json.dumps(str(key))} = {_toml_value(value)}\n" for key, value in document.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return "nan" if value != value else {float("inf"): "inf", -float("inf"): "-inf"}.get(value) or json.dumps(value)


_TEXT: tuple[tuple[Callable[[str], str], str], ...] = (
    (lambda text: "\ufeff" + text, "begins with a byte order mark"),
    (lambda text: text + text, "twice in one file"),
    (lambda text: "[" * _DEEP, "nested without end"),
    (lambda text: '{"a":' * _DEEP + "1" + "}" * _DEEP, "nested deeply"),
    (lambda text: f'{{"schema": 1, "x": {"9" * 6000}}}', "a number of 6,000 digits"),
    (lambda text: f"x = {'9' * 6000}", "a number of 6,000 digits, as TOML"),
    (lambda text: f"x = {'[' * 5000}{']' * 5000}", "nested deeply, as TOML"),
    (lambda text: text.replace(": 1", ": NaN").replace("= 1", "= nan"), "NaN for 1"),
    (lambda text: text.replace(": 1", ": 1e999"), "1e999 for 1"),
    (lambda text: text.replace('"', "'"), "other quotes"),
    (lambda text: text.replace("\n", "\r"), "other ends of lines"),
    (lambda text: "<html><body>404 Not Found</body></html>", "a web page"),
    (lambda text: "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
    (lambda text: "null", "null alone"),
    (lambda text: "\0" * 100, "zeros alone"),
)


def replace_file(path: Path, rng: Rng, *, pipe: bool = True) -> str:
    """Something else where a file was, and what. pipe: maybe one that nobody writes into."""
    ways = ("gone", "folder", "full folder", "link to nowhere", "link to itself", "device", "empty")
    how = rng.choice((*ways, "pipe") if pipe else ways)
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "full folder":
        path.mkdir()
        (path / "file").write_text("x")
    elif how == "link to nowhere":
        path.symlink_to("nowhere")
    elif how == "link to itself":
        path.symlink_to(path.name)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    elif how == "empty":
        path.touch()
    return f"{path.name}: {how}"


def link_outside(path: Path, outside: Path) -> str:
    """The file itself moved to the folder outside, and a link to it left."""
    there = outside / f"moved-{path.name}"
    shutil.move(path, there)
    path.symlink_to(there)
    return f"{path.name}: a link to outside"
