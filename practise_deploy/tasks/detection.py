"""Boxes of detectors: decoded by a stated rule, those that overlap suppressed, and matched between two networks.

Four forms of outputs are known. Of one output: [n, 4 + classes, places], as YOLOv8's; [n, places, 5 + classes] with an objectness, as
YOLOv5's; [n, boxes, 6] of corners, score and class, suppressed already, as YOLOv10's. Of several: [n, boxes, 4] of corners, and
[n, boxes] or [n, boxes, classes] of scores, with [n, boxes] of classes where there are some.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

LEAST_SCORE, LEAST_OVERLAP, SUPPRESSED_ABOVE = 0.25, 0.5, 0.45
"""A box counts from this score on; two match from this IoU on; of two boxes of a class that overlap more than that one is kept."""
_MOST_BOXES = 100
_NUMBERS = 6
_SUPPRESSED_AT_MOST = 1000
"""Boxes of an output of six numbers each, beyond which these are places that are not suppressed yet."""

Floats = npt.NDArray[np.float64]
_Boxes = tuple[Tensor, Tensor, Tensor]


def boxes_of(outputs: Sequence[Tensor]) -> Tensor | None:
    """The boxes of every image, best first, in rows of corners, score and class; the rest of a row is -1.

    Shapes: outputs [n, ...] -> [n, 600]. None where the outputs are of no form that is known.
    """
    decoded = _decoded([output.float() for output in outputs])
    if decoded is None:
        return None
    found = torch.full((len(outputs[0]), _MOST_BOXES, _NUMBERS), -1.0, device=outputs[0].device)
    for image, (boxes, scores, classes) in enumerate(zip(*decoded, strict=True)):
        sure = scores >= LEAST_SCORE
        boxes, scores, classes = boxes[sure], scores[sure], classes[sure]
        kept = batched_nms(boxes, scores, classes, SUPPRESSED_ABOVE)[:_MOST_BOXES]
        rows = torch.cat([boxes[kept], scores[kept, None], classes[kept, None].float()], 1)
        found[image, : len(rows)] = rows
    return found.flatten(1)


def _decoded(outputs: list[Tensor]) -> _Boxes | None:
    """Corners [n, boxes, 4], scores [n, boxes] and classes [n, boxes]."""
    if len(outputs) > 1:
        return _of_several(outputs)
    output = outputs[0]
    if output.ndim != 3:
        return None
    if output.shape[2] == _NUMBERS and output.shape[1] <= _SUPPRESSED_AT_MOST:
        return output[..., :4], output[..., 4], output[..., 5].long()
    if output.shape[1] < output.shape[2]:
        places = output.transpose(1, 2)
        scores, classes = places[..., 4:].max(2)
    else:
        places = output
        scores, classes = (places[..., 5:] * places[..., 4:5]).max(2)
    return box_convert(places[..., :4], "cxcywh", "xyxy"), scores, classes


def _of_several(outputs: list[Tensor]) -> _Boxes | None:
    boxes = next((output for output in outputs if output.ndim == 3 and output.shape[2] == 4), None)
    if boxes is None:
        return None
    others = [output for output in outputs if output is not boxes and output.shape[:2] == boxes.shape[:2]]
    wide = next((output for output in others if output.ndim == 3), None)
    if wide is not None:
        scores, classes = wide.max(2)
        return boxes, scores, classes
    flat = [output for output in others if output.ndim == 2]
    if not flat:
        return None
    scores = next((output for output in flat if bool((output <= 1).all()) and bool((output % 1 != 0).any())), flat[0])
    classes = next((output for output in flat if output is not scores), torch.zeros_like(scores))
    return boxes, scores, classes.long()


def matched(first: Floats, second: Floats) -> Floats:
    """By image, the share of boxes that are matched: twice the pairs over all boxes; 1 where neither network has any.

    A box matches one of its class with an IoU of at least `LEAST_OVERLAP`, the best pairs first. Shapes: [n, 600] -> [n].
    """
    return np.array([_matched(*(_rows(each) for each in pair)) for pair in zip(first, second, strict=True)])


def has_boxes(answers: Floats) -> bool:
    """Whether there are boxes in any image."""
    return bool((answers.reshape(len(answers), -1, _NUMBERS)[..., 4] >= 0).any())


def _rows(answer: Floats) -> Floats:
    rows = answer.reshape(-1, _NUMBERS)
    return rows[rows[:, 4] >= 0]


def _matched(first: Floats, second: Floats) -> float:
    if not len(first) and not len(second):
        return 1.0
    overlaps = _overlaps(first[:, :4], second[:, :4]) * (first[:, None, 5] == second[None, :, 5])
    pairs = 0
    while overlaps.size and overlaps.max() >= LEAST_OVERLAP:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row], overlaps[:, column] = 0, 0
        pairs += 1
    return 2 * pairs / (len(first) + len(second))


def _overlaps(first: Floats, second: Floats) -> Floats:
    """IoU of every box with every other. Shapes: [a, 4], [b, 4] -> [a, b]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod((high - low).clip(0), axis=2)
    areas = [np.prod((boxes[:, 2:] - boxes[:, :2]).clip(0), axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(common / np.maximum(union, 1e-12))
