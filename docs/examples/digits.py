# %% [markdown]
# # A network made faster, from Python
#
# The cells of this script run in a notebook (VS Code, PyCharm and Jupytext read `# %%`), or all at once: `python docs/examples/digits.py`.
# They take about two minutes on two cores. The network is the embedded ResNet-20, which reads handwritten digits; yours goes in its place.

# %%
import numpy as np
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

import practise_deploy as pd
from practise_deploy.embedded import digits

network = digits.make_digits_network()
network.load_state_dict(load_file(digits.WEIGHTS))

# %% [markdown]
# 100 images to fit, without labels, in a loader; 500 others with labels, for verification alone.

# %%
arrays = np.load(digits.IMAGES)
images = DataLoader(TensorDataset(torch.from_numpy(arrays["fit_images"])[:, None]), batch_size=25)
held_out = (arrays["held_out_images"], arrays["held_out_labels"])

# %% [markdown]
# Which blocks can be dropped? Nothing is measured yet.

# %%
print(pd.inspect(network))

# %% [markdown]
# What does each block cost on this device? The run folder is `runs/DigitsNetwork`, named after the class; the later cells go on there.

# %%
print(pd.measure_latency(network))

# %% [markdown]
# Which blocks should go for 22% less latency?

# %%
plan = pd.plan(network, images, eval=held_out, reduce=22)
print(plan)

# %% [markdown]
# The whole job. What was measured and planned above is kept.

# %%
release = pd.build(network, images, eval=held_out, reduce=22)
print(release)
print(
    f"promise kept: {release.kept}; agreement with the original: {release.agreement.estimate:.1f}%; report: {release.report}"
)

# %% [markdown]
# The new network in torch takes what the original takes: normalised float images.

# %%
pixels = torch.from_numpy(arrays["held_out_images"])[:, None].float() / 255
mean, std = digits.PRETRAINED_CFG["mean"][0], digits.PRETRAINED_CFG["std"][0]
with torch.inference_mode():
    answers = release.network((pixels - mean) / std).argmax(1)
right = (answers == torch.from_numpy(arrays["held_out_labels"])).sum()
print(f"the new network is right on {right} of {len(answers)} images")

# %% [markdown]
# The same comparison again, of the module and its release, in fresh rounds.

# %%
print(pd.compare(network, release, measure_budget_s=5))
