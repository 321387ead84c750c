"""What is done to images: other formats, depths and sizes, sizes that are claimed and not there, and odd files among them."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mutators import TEXTS, replace_file
from PIL import Image

Rng = random.Random


def damage_image(path: Path, rng: Rng) -> str:
    """Write another image, or none, to a path; gives what."""
    what = rng.choice(list(_WAYS))
    path.write_bytes(_WAYS[what]())
    return f"{path.name}: {what}"


def _saved(image: Image.Image, kind: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def _noise(mode: str, size: tuple[int, int] = (20, 16)) -> Image.Image:
    return Image.effect_noise(size, 64).convert(mode)


def _png(width: int, height: int, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG whose header says this, whatever its rows are."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _animated(kind: str) -> bytes:
    return _saved(_noise("RGB"), kind, save_all=True, append_images=[_noise("RGB"), _noise("RGB")])


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(_noise("RGB"), "JPEG", exif=exif)


def _bad_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 99
    return _saved(_noise("RGB"), "JPEG", exif=exif.tobytes()[:-3] + b"\xff\xff\xff")


_WAYS: dict[str, Callable[[], bytes]] = {
    "16 bit": lambda: _saved(Image.fromarray((np.arange(400, dtype=np.uint16) * 160).reshape(20, 20)), "PNG"),
    "CMYK": lambda: _saved(_noise("RGB").convert("CMYK"), "JPEG"),
    "grey with alpha": lambda: _saved(_noise("LA"), "PNG"),
    "palette": lambda: _saved(_noise("P"), "PNG"),
    "palette, transparent": lambda: _saved(_noise("P"), "PNG", transparency=b"\0" * 10),
    "one bit": lambda: _saved(_noise("1"), "PNG"),
    "floating point": lambda: _saved(_noise("F"), "TIFF"),
    "32 bit": lambda: _saved(_noise("I"), "TIFF"),
    "Lab": lambda: _saved(_noise("L").convert("RGB").convert("HSV").convert("RGB"), "TIFF"),
    "animated GIF": lambda: _animated("GIF"),
    "animated PNG": lambda: _animated("PNG"),
    "animated WebP": lambda: _animated("WEBP"),
    "BMP": lambda: _saved(_noise("RGB"), "BMP"),
    "turned by EXIF": _turned,
    "damaged EXIF": _bad_exif,
    "one pixel": lambda: _saved(_noise("RGB", (1, 1)), "PNG"),
    "a long row": lambda: _saved(_noise("RGB", (9000, 1)), "PNG"),
    "a high column": lambda: _saved(_noise("RGB", (1, 9000)), "PNG"),
    "one colour": lambda: _saved(Image.new("RGB", (16, 16)), "PNG"),
    "claims 60,000 pixels a side": lambda: _png(60_000, 60_000),
    "claims 2**31": lambda: _png(2**31 - 1, 2**31 - 1),
    "claims 12,000 pixels a side": lambda: _png(12_000, 12_000, rows=bytes(100)),
    "no pixels": lambda: _png(0, 0),
    "odd depth": lambda: _png(16, 16, depth=3),
    "too few rows": lambda: _png(16, 16, rows=bytes(100)),
    "a bomb of 9,000 pixels a side": lambda: _png(9000, 9000, depth=1, colour=0, rows=bytes(9000 * 1126)),
    "a text": lambda: b"not an image",
    "a web page": lambda: b"<html></html>",
    "a Git LFS pointer": lambda: b"version https://git-lfs.github.com/spec/v1\n",
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/hostname'/></svg>",
    "EPS": lambda: (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(../outside/written) (w) file closefile\n%%EOF\n"
    ),
    "PDF": lambda: b"%PDF-1.4\n",
    "empty": lambda: b"",
}


def damage_list(path: Path, rng: Rng) -> str:
    """Change lines of a list of images; gives what."""
    lines, told = path.read_text().splitlines(), []
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(lines))
        what = rng.choice(("text", "place", "label", "delete", "double", "comment", "long"))
        place = rng.choice(
            (
                "/dev/zero",
                "../outside",
                "photos",
                "pipe.png",
                "https://example.org/a.png",
                "list.txt",
                "",
                "\0",
                *TEXTS[:20],
            )
        )
        lines[at] = {
            "text": rng.choice(TEXTS), "place": f"{place}\t1", "label": lines[at].split("\t")[0] + f"\t{rng.choice((*TEXTS, -1, 99, 1.5))}",
            "delete": lines[at].split("\t")[0], "double": "\n".join([lines[at]] * rng.choice((2, 200))), "comment": "#" + lines[at], "long": lines[at] * 500,
        }[what]  # fmt: skip
        told.append(f"line {at + 1}: {what}")
    if rng.random() < 0.2:
        lines = lines[: rng.randrange(len(lines))]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return "; ".join(told)


def damage_folder(folder: Path, rng: Rng) -> str:
    """Change what lies in a folder of images; gives what."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = rng.choice(files)
    act = rng.choice(("replace", "replace", "rename", "delete", "empty", "more", "copies", "mixed"))
    if act == "replace":
        return replace_file(file, rng)
    if act == "rename":
        other = rng.choice(
            (
                b"\xff\xfe.png",
                b"\x1b[31m.png",
                b"a\nb.png",
                "\u202egnp.exe.png".encode(),
                b"x" * 240 + b".png",
                b"x.PNG",
                b"x",
                b".png",
                b" .png",
            )
        )
        os.rename(os.fsencode(file), os.path.join(os.fsencode(file.parent), other))
        return f"one is called {other[:20]!r}"
    if act == "delete":
        for path in rng.sample(files, rng.choice((1, 8, 14, 15))):
            path.unlink()
    elif act == "empty":
        for path in files:
            path.unlink()
    elif act == "more":
        (folder / rng.choice(("x.heic", "x.txt", "x.npy", "x.svg", "x.psd", "x.ico"))).write_bytes(rng.randbytes(100))
    elif act == "copies":
        for number in range(40):
            (folder / f"copy{number}.png").write_bytes(file.read_bytes())
    else:
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "x.png").write_bytes(file.read_bytes())
        (folder / "x.png").write_bytes(file.read_bytes())
    return act
