"""What of well-known networks can be dropped, and where the refit can begin right at the cut.

    python benchmarks/reproduce/which_networks.py [NETWORK...]

Networks of torchvision and timm by name, at their own input size, without their weights: nothing is measured, and nothing
depends on the weights. For each, its residual units, those that can be dropped, why the others cannot, and of those that can the
ones whose cut has writers before it that least squares solves for. Written anew after every network:
benchmarks/results/which_networks.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny.provenance import commit
from tiny.subjects import ROOT

from practise_deploy.errors import PractiseError
from practise_deploy.model.blocks import find_blocks
from practise_deploy.model.networks import Network, load_network
from practise_deploy.model.surgery import drop_blocks
from practise_deploy.planning.sites import first_site, junction_site
from practise_deploy.settings import Settings
from practise_deploy.store import write_atomically
from practise_deploy.terms import Block

PATH = ROOT / "benchmarks" / "results" / "which_networks.json"
TORCHVISION = (
    "resnet18", "resnet34", "resnet50", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_large", "mnasnet1_0",
    "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "shufflenet_v2_x1_0", "densenet121", "convnext_tiny",
    "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t",
)  # fmt: skip
TIMM = (
    "efficientnet_lite0", "mobilenetv4_conv_small", "mobilenetv4_hybrid_medium", "ghostnet_100", "fbnetc_100",
    "repvgg_a0", "resnetv2_50", "seresnet50", "cspresnet50", "res2net50_26w_4s", "darknet53", "hrnet_w18_small",
    "fastvit_t8", "edgenext_small", "mobilevit_s", "mobilevitv2_100", "efficientformer_l1", "efficientvit_b0",
    "levit_128s", "convnextv2_atto", "deit_tiny_patch16_224", "deit3_small_patch16_224", "vit_small_patch16_dinov3",
    "cait_xxs24_224", "mixer_s16_224", "resmlp_12_224", "poolformer_s12", "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256", "tiny_vit_5m_224", "pvt_v2_b0", "xcit_nano_12_p16_224", "coatnet_nano_rw_224",
    "hiera_tiny_224",
)  # fmt: skip
NAMES = (*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM))


def found_in(name: str) -> dict[str, Any]:
    """One network's row; `error` where it cannot be used."""
    torch.manual_seed(0)
    try:
        network = load_network(Settings(network=name), structure_only=True)
        blocks = find_blocks(network.traced, network.input_shape)
    except PractiseError as error:
        return {"network": name, "error": str(error)}
    gone = [block for block in blocks if block.droppable]
    cuts = [junction_site(network.traced, network.traced, block.entry, block.exit) for block in gone]
    behind = [block for block, cut in zip(gone, cuts, strict=True) if cut is None and _is_refitted(network, block)]
    return {
        "network": name, "input": list(network.input_shape[1:]), "parameters": network.facts.parameters,
        "units": len(blocks), "droppable": len(gone), "refitted_at_the_cut": sum(cut is not None for cut in cuts),
        "refitted_behind_it": len(behind),
        "not_refitted_at_the_cut": [block.name for block, cut in zip(gone, cuts, strict=True) if cut is None],
        "reasons": dict(Counter(block.reason.split(":")[0] for block in blocks if not block.droppable)),
        "whole": [note.split(" could not ")[0] for note in network.facts.notes if " could not be traced" in note],
    }  # fmt: skip


def _is_refitted(network: Network, block: Block) -> bool:
    """Whether anything can be refitted without a block."""
    student = drop_blocks(network.traced, [block], share_weights=True)
    return first_site(student, network.traced, block, network.facts.feature) is not None


def main() -> None:
    """Look at the named networks, or at all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="such as torchvision:resnet18; default: all")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"not among the networks here: {', '.join(sorted(unknown))}")
    rows = {row["network"]: row for row in json.loads(PATH.read_text())["networks"]} if PATH.is_file() else {}
    for name in options.names or NAMES:
        rows[name] = found_in(name) | {"commit": commit()}
        print({key: value for key, value in rows[name].items() if key != "not_refitted_at_the_cut"}, flush=True)
        ordered = [rows[each] for each in NAMES if each in rows]
        versions = {package: version(package) for package in ("torch", "torchvision", "timm")}
        write_atomically(PATH, json.dumps({"schema": 1, **versions, "networks": ordered}, indent=1) + "\n")


if __name__ == "__main__":
    main()
