"""What the tests of finetuning share: a teacher, a student, and short descents."""

import copy
from functools import cache

import torch

from networks import tiny_resnet
from practise_deploy.network.graph.activations import find_feature
from practise_deploy.network.graph.surgery import drop_blocks, weights_of
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.training.distillation import Distillation, distillation_of, find_hints
from practise_deploy.training.mimic import mimic
from practise_deploy.training.schedule import Schedule
from samples.lessons import Silent, photos

SHAPE = (1, 3, 16, 16)


@cache
def original():
    """A teacher, a student without one of its blocks, the name of their features, and the block. Not to be changed."""
    traced, _ = trace(tiny_resnet(), SHAPE)
    blocks = {block.name: block for block in find_blocks(traced, SHAPE)}
    return traced, drop_blocks(traced, [blocks["layer2.1"]]), find_feature(traced).name, blocks["layer2.1"]


def small_pair(device: str = "cpu") -> Distillation:
    teacher, student, feature, block = original()
    traced, _ = trace(tiny_resnet(), SHAPE)
    networks = copy.deepcopy(student), copy.deepcopy(teacher).requires_grad_(False)
    hints = find_hints(networks[0], find_blocks(traced, SHAPE), [block], feature)
    there = torch.device(device)
    return distillation_of(*(each.to(there) for each in networks), feature, [block], hints=hints, device=there)


def descend(schedule: Schedule, *, partial=None, progress=None, count: int = 20, device: str = "cpu"):
    pair = small_pair(device)
    learn, judge = photos(count).split(0)
    reached = [p for name, p in pair.student.named_parameters() if not name.startswith("fc")]
    course = mimic(pair, reached, (learn, judge), schedule, progress or Silent(), partial)
    return pair, course, weights_of(pair.student)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


SHORT = Schedule(steps=6, batch_size=8)
