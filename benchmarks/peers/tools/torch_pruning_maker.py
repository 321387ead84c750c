"""torch-pruning's magnitude pruner over its dependency graph, then feature mimicking with this package's own schedule."""

import copy
import json
import sys
from pathlib import Path

import onnx
import torch
import torch_pruning
from torch import nn

from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.graph.surgery import weights_of
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.run import Run, Silent
from practise_deploy.settings import read_settings
from practise_deploy.terms import Student
from practise_deploy.training.distillation import Distillation
from practise_deploy.training.finetune import TINY, finetune

place, file, share = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
settings = read_settings(json.loads((place / "settings.json").read_text()) | {"out": place / f"torch-pruning-{share}"})
context = BuildContext(settings=settings, run=Run(settings.run_folder))
network = context.network
teacher, shape = network.traced, (1, *network.input_shape[1:])
student = copy.deepcopy(teacher)
sample = torch.zeros(shape)
convolutions = [module for module in student.modules() if isinstance(module, nn.Conv2d)]
heads = [module for module in student.modules() if isinstance(module, nn.Linear)]
kept = [*heads, *convolutions[-1:]]  # the features that are mimicked keep their width
pruner = torch_pruning.pruner.MagnitudePruner(
    student, sample, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2), pruning_ratio=share,
    ignored_layers=kept, global_pruning=False,
)  # fmt: skip
pruner.step()
start = Student(
    dropped=(),
    method="torch-pruning",
    mse_before=0.0,
    mse=0.0,
    steps=0,
    seconds=0.0,
    notes=(),
    weights=weights_of(student),
)
feature = network.summary.feature
pair = Distillation(student.eval(), teacher, feature, feature)
done = finetune(pair, start, context.images.fit, TINY, Silent())
onnx.save(to_onnx(student.eval(), shape), file)
print(
    json.dumps(
        {
            "torch_pruning": torch_pruning.__version__,
            "torch": torch.__version__,
            "mse": f"{done.mse_before:.4g} -> {done.mse:.4g}",
        }
    )
)
