"""Text encoders from a Hugging Face folder on disk: exported to ONNX, which is what is planned, cut and shipped.

Encoders that see all tokens at once, as BERT does: the padding mask is handed to them as what is added to the attention scores, so that
nothing in the graph depends on where padding is.
"""

from __future__ import annotations

import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from practise_backends.errors import EnvironmentProblem, lacks_memory
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.loading.named_inputs import MASK, exported, takes_additive_mask, with_additive_mask

PREFIX = "hf:"
DEFAULT_LENGTH = 128
_WRITERS = ("CausalLM", "LMHead", "GPT", "DoubleHeads")
_SCORERS = ("SequenceClassification", "TokenClassification")
_COUNT_BEHIND_PADDING = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
    "xmod",
)
_LEAST_COUNT = 1e-9


@dataclass(frozen=True, slots=True)
class Encoder:
    """A text encoder: its tokenizer, its module, which takes the tokenizer's arrays in this order, what its output is called, and its task where its class says that."""

    tokenizer: Any
    module: OfTokens
    inputs: tuple[str, ...]
    output: str
    notes: tuple[str, ...]
    longest: int
    task: str | None = None

    def as_the_library_calls_it(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Its output with the padding mask as the tokenizer gives it. Shapes: arrays [n, length] each."""
        found = self.module.network(**{name: arrays[name] for name in self.inputs})
        return self.module.output(found, arrays)


def load_encoder(folder: Path, *, tokenizer_only: bool = False) -> Encoder:
    """The encoder of a folder with config.json, weights and a tokenizer.

    tokenizer_only: without its weights, to read texts with.

    Raises: InputError; EnvironmentProblem where the package transformers is missing.
    """
    transformers = _transformers(folder)
    if not folder.is_dir():
        raise InputError(
            f"no such folder: {folder}", remedy="give a Hugging Face folder on disk as hf:FOLDER; nothing is downloaded"
        )
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} holds no config.json", remedy="give the folder that save_pretrained wrote, as hf:FOLDER"
        )
    with _from_disk(folder):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        kind, has_scores, notes = _class_of(folder, config, transformers)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = nn.Module()
        if not tokenizer_only:
            network = kind.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()
    inputs = tuple(name for name in tokenizer.model_input_names if name in ("input_ids", MASK, "token_type_ids"))
    longest = min(_positions(config), int(tokenizer.model_max_length))
    if has_scores:
        task = "sequence" if "Token" in kind.__name__ else None
        return Encoder(tokenizer, Scored(network, inputs), inputs, "logits", notes, longest, task)
    pooling, normalised = _pooling(folder)
    module = Pooled(network, inputs, pooling, normalised)
    return Encoder(
        tokenizer, module, inputs, "sentence_embedding", (*notes, _pooling_note(pooling, normalised)), longest
    )


def _class_of(folder: Path, config: Any, transformers: Any) -> tuple[Any, bool, tuple[str, ...]]:
    """The class that reads a folder's weights, whether it gives scores of classes, and a note where a head is left out."""
    names = [name for name in config.architectures or () if hasattr(transformers, name)]
    name = names[0] if names else "AutoModel"
    if getattr(config, "is_decoder", False) or config.is_encoder_decoder or any(word in name for word in _WRITERS):
        raise InputError(
            f"{folder} holds {name}, which writes text; encoders of text can be cut so far",
            remedy="give a text encoder or a classifier of texts, such as BERT",
        )
    if any(word in name for word in _SCORERS):
        return getattr(transformers, name), True, ()
    headed = not name.endswith("Model")  # an embedding is made of states, not of what a head makes of them
    notes = (f"the head of {name} is left out: its encoder alone is cut and shipped",) if headed else ()
    return transformers.AutoModel, False, notes


def _positions(config: Any) -> int:
    """How many tokens a text may have: RoBERTa's kind begins to count behind the number of the padding."""
    positions = int(getattr(config, "max_position_embeddings", 512))
    if str(getattr(config, "model_type", "")) not in _COUNT_BEHIND_PADDING:
        return positions
    padding = getattr(config, "pad_token_id", None)
    return positions - (1 if padding is None else int(padding)) - 1


def tokens_of(encoder: Encoder, lines: list[str], length: int) -> dict[str, npt.NDArray[np.int64]]:
    """Texts as the encoder's inputs, padded and cut to a length. Shapes: [texts, length] each."""
    made = encoder.tokenizer(lines, padding="max_length", truncation=True, max_length=length, return_tensors="np")
    return {name: np.asarray(made[name], dtype=np.int64) for name in encoder.inputs}


def longest_of(encoder: Encoder, lines: list[str]) -> int:
    """The number of tokens of the longest text, rounded up to 8."""
    counts = [len(ids) for ids in encoder.tokenizer(lines)["input_ids"]]
    return min(encoder.longest, -(-max(counts) // 8) * 8)


def exported_encoder(encoder: Encoder, length: int) -> onnx.ModelProto:
    """The encoder as ONNX for texts of one length, any number of them.

    Raises: InputError where the exporter cannot express it.
    """
    sample = tokens_of(encoder, ["one text", "and another one"], length)
    arrays = {name: torch.from_numpy(sample[name]) for name in encoder.inputs}
    encoder.module.additive = takes_additive_mask(lambda given: encoder.module.network(**given), arrays)
    return exported(encoder.module, arrays, [encoder.output])


class OfTokens(nn.Module, ABC):
    """A network of the package transformers that takes the tokenizer's arrays in order.

    additive: whether the mask is handed to it as what is added to the attention scores.
    """

    def __init__(self, network: nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.inputs, self.additive = network, inputs, False

    def forward(self, *tokens: Tensor) -> Tensor:
        """Shapes: tokens [n, length] each -> what `output` gives."""
        arrays = dict(zip(self.inputs, tokens, strict=True))
        return self.output(self.network(**with_additive_mask(arrays) if self.additive else arrays), arrays)

    @abstractmethod
    def output(self, found: Any, arrays: Mapping[str, Tensor]) -> Tensor:
        """What is shipped of what the network gives."""


class Scored(OfTokens):
    """A network that gives scores of classes."""

    def output(self, found: Any, arrays: Mapping[str, Tensor]) -> Tensor:
        """Shapes: [n, classes], or [n, length, classes]."""
        return found.logits


class Pooled(OfTokens):
    """An encoder with what sentence-transformers puts behind it: one vector for each text."""

    def __init__(self, network: nn.Module, inputs: tuple[str, ...], pooling: str, normalised: bool) -> None:
        super().__init__(network, inputs)
        self.pooling, self.normalised = pooling, normalised

    def output(self, found: Any, arrays: Mapping[str, Tensor]) -> Tensor:
        """Shapes: [n, width]."""
        states = found[0]
        counts = arrays[MASK].unsqueeze(-1).to(states.dtype)
        vector = (
            states[:, 0] if self.pooling == "cls" else (states * counts).sum(1) / counts.sum(1).clamp_min(_LEAST_COUNT)
        )
        return nn.functional.normalize(vector, dim=1) if self.normalised else vector


def _pooling(folder: Path) -> tuple[str, bool]:
    """mean or cls, and whether vectors are normalised, as sentence-transformers' files say; the mean where there are none."""
    modules = _json(folder / "modules.json")
    kinds = [str(each.get("type", "")) for each in modules] if isinstance(modules, list) else []
    config = _json(folder / "1_Pooling" / "config.json")
    asked = _asked_pooling(config) if isinstance(config, Mapping) else "mean"
    if asked not in ("cls", "mean"):
        raise InputError(
            f"{folder} pools its tokens by '{asked}'; the first token's state and the mean are known",
            remedy="export the encoder with its pooling to ONNX, and give FILE.onnx with the tokens in an .npz",
        )
    return asked, any(kind.endswith("Normalize") for kind in kinds)


def _asked_pooling(config: Mapping[str, Any]) -> str:
    """The pooling that sentence-transformers' file names, in its older form or its newer one."""
    flags = [
        name.removeprefix("pooling_mode_")
        for name, value in config.items()
        if value is True and name.startswith("pooling_mode_")
    ]
    named = config.get("pooling_mode")
    kinds = flags or ([named] if isinstance(named, str) else ["mean"])
    return (
        {"cls_token": "cls", "mean_tokens": "mean"}.get(kinds[0], kinds[0]) if len(kinds) == 1 else " and ".join(kinds)
    )


def _pooling_note(pooling: str, normalised: bool) -> str:
    how = "the first token's state" if pooling == "cls" else "the mean of the tokens' states"
    return f"a text's embedding is {how}{', of length 1' if normalised else ''}"


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _transformers(folder: Path) -> Any:
    try:
        import transformers
    except ImportError:
        raise EnvironmentProblem(
            f"{PREFIX}{folder} needs the package transformers, which is not installed",
            remedy='pip install "practise-deploy[transformers]"',
        ) from None
    return transformers


@contextmanager
def _from_disk(folder: Path) -> Any:
    """Errors of what is read from a folder as errors of the input, and no word of the library's."""
    logging: Any = importlib.import_module("transformers.utils.logging")

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"{folder} cannot be read: {first_line(error)}",
            remedy="give the folder that save_pretrained wrote, with its weights and its tokenizer",
        ) from None
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
