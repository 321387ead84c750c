"""Small text encoders, as ONNX files and as Hugging Face folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from practise_deploy.network.graph.onnx_graph import quiet

LENGTH, WORDS = 12, 40


class Encoder(nn.Module):
    """Two post-norm layers over embedded tokens, and their mean over what is no padding; or scores of so many classes for each token."""

    def __init__(self, width: int = 16, layers: int = 2, classes: int = 0) -> None:
        super().__init__()
        self.scores = nn.Linear(width, classes) if classes else None
        self.tokens, self.places = nn.Embedding(WORDS, width), nn.Parameter(0.1 * torch.randn(LENGTH, width))
        kinds = {"key": width, "query": width, "value": width, "out": width, "wide": 2 * width}
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {name: nn.Linear(width, size) for name, size in kinds.items()}
                | {"narrow": nn.Linear(2 * width, width), "first": nn.LayerNorm(width), "second": nn.LayerNorm(width)}
            )
            for _ in range(layers)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.tokens(input_ids) + self.places
        masked = (1.0 - attention_mask[:, None, :].float()) * -10000.0
        for layer in self.layers:
            scores = layer["query"](x) @ layer["key"](x).transpose(1, 2) / 4 + masked
            x = layer["first"](x + layer["out"](scores.softmax(2) @ layer["value"](x)))
            x = layer["second"](x + layer["narrow"](layer["wide"](x).relu()))
        if self.scores is not None:
            return self.scores(x)
        counts = attention_mask.unsqueeze(2).float()
        pooled = (x * counts).sum(1) / counts.sum(1).clamp_min(1e-9)
        return nn.functional.normalize(pooled, dim=1)


def encoder_file(path: Path, seed: int = 0, classes: int = 0) -> Path:
    """The encoder as ONNX, for any number of texts. classes: of each token, where it is no embedding."""
    torch.manual_seed(seed)
    sample = (torch.zeros(2, LENGTH, dtype=torch.long), torch.ones(2, LENGTH, dtype=torch.long))
    batch = {0: torch.export.Dim("n")}
    with quiet():
        program = torch.onnx.export(
            Encoder(classes=classes).eval(), sample, dynamo=True, verbose=False, input_names=["input_ids", "attention_mask"],
            output_names=["vector"], dynamic_shapes=(batch, batch),
        )  # fmt: skip
    assert program is not None
    onnx.save(program.model_proto, path)
    return path


def tokens(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Texts of different lengths; what stands in their padding is noise."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, LENGTH + 1, (count, 1))
    return {
        "input_ids": rng.integers(0, WORDS, (count, LENGTH)),
        "attention_mask": (np.arange(LENGTH) < lengths).astype(np.int64),
    }


def bert_folder(folder: Path) -> Path:
    """A small BERT with random weights and a tokenizer of few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(60))]
    numbers = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, numbers[name]) for name in ("[CLS]", "[SEP]")]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    (folder / "modules.json").write_text(
        json.dumps([{"type": "x.Transformer"}, {"type": "x.Pooling"}, {"type": "x.Normalize"}])
    )
    return folder


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of the tokenizer's words."""
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in rng.integers(0, 60, rng.integers(3, 9))) for _ in range(count)]
