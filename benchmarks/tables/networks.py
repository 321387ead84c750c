"""How inspect ends for the networks of torchvision and timm, and what of well-known ones can be dropped and refitted."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from .shared import ABSENT, read

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
SHOWN = (*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM))


def inspect_all() -> str:
    """How many networks end how, and a row for each that is well known."""
    found = read("inspect_all.json")
    if found is None:
        return ABSENT
    by_name = {each["network"]: each for each in found["networks"]}
    rows = [
        "| network | input | residual units | can be dropped | refitted right at the cut | if not, behind it | the others stay, for | whole modules |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in (by_name[name] for name in SHOWN if name in by_name):
        stay = ", ".join(f"{reason} ({count})" for reason, count in each["reasons"].items())
        rows.append(
            f"| {each['network']} | {'x'.join(map(str, each['input']))} | {each['units']} | {each['droppable']} "
            f"| {each['refitted_at_the_cut']} | {each['refitted_behind_it'] or ''} | {stay} | {len(each['whole']) or ''} |"
        )
    made = ", ".join(sorted({each["commit"] for each in found["networks"]}))
    versions = ", ".join(f"{package} {found[package]}" for package in ("torch", "torchvision", "timm"))
    return "\n".join([*_endings(found), "", *rows, "", f"{versions}; commits {made}."])


def _endings(found: dict[str, Any]) -> list[str]:
    """A row for each way in which inspect ends; refusals by what they begin with."""
    ended = Counter(_ending(each) for each in found["networks"])
    rows = [f"| {ending} | {count} |" for ending, count in ended.most_common()]
    return [
        f"Of {found['names']} names, {found['ran']} ran.",
        "",
        "| inspect ends with | networks |",
        "|---|---|",
        *rows,
    ]


def _ending(row: dict[str, Any]) -> str:
    if row["ended"] == 0:
        return "blocks that can be dropped"
    if "refusal" not in row:
        return str(row["ended"]).split(":")[0]
    said = re.sub(r"(torchvision|timm):\S+", "NETWORK", row["refusal"]).removeprefix("NETWORK ")
    return "refused: " + re.split(r"[:,;(]| of ", said)[0]
