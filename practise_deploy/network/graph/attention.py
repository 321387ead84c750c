"""torch's attention and transformer encoders in operations that tracing can follow: their own forwards decide on values.

The same weights under the same names; dropout within the attention is that of eval mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

Forward = Callable[..., Any]


def decides_on_values(module: nn.Module) -> bool:
    """Whether it is one of those modules, as torch has them."""
    return type(module) in _TRACEABLE_FORWARDS


def traceable_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Forward | None:
    """An equivalent forward for this call that does not branch on values; None where there is none.

    There is none for cross-attention, attention that is not batch-first, encoders that leave out what is padded (nested tensors), and
    modules with hooks.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    call = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    call.apply_defaults()
    return _TRACEABLE_FORWARDS[type(module)](module, call.arguments)


def additive_mask(x: Tensor, mask: Tensor | None, padding: Tensor | None, heads: int) -> Tensor | None:
    """What is added to the scores of attention: minus infinity where a mask of truth values masks, else the masks themselves.

    Shapes: x [n, positions, channels]; mask [positions, positions], or of every image and head [n * heads, positions, positions];
    padding [n, positions] -> up to [n, heads, positions, positions].
    """
    total = None
    if mask is not None:
        total = _additive(mask, x.dtype)
        total = total if total.ndim == 2 else torch.unflatten(total, 0, (-1, heads))
    if padding is not None:
        keys = _additive(padding, x.dtype)[:, None, None, :]
        total = keys if total is None else total + keys
    return total


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask


fx.wrap("additive_mask")  # it decides on the masks' types


def _attention(module: nn.Module, arguments: Mapping[str, Any]) -> Forward | None:
    assert isinstance(module, nn.MultiheadAttention)
    is_self_attention = arguments["query"] is arguments["key"] is arguments["value"]
    is_standard = module.in_proj_weight is not None and module.bias_k is None and not module.add_zero_attn
    mask, padding = arguments["attn_mask"], arguments["key_padding_mask"]
    masked = mask is not None or padding is not None
    if not (is_self_attention and is_standard and module.batch_first):
        return None

    def forward(query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor | None]:
        """Shapes: [n, positions, channels] -> the same, and if requested the attention weights.

        Those are [n, positions, positions], averaged over the heads, or [n, heads, positions, positions].
        """
        joint = F.linear(query, module.in_proj_weight, module.in_proj_bias)
        by_head = torch.unflatten(joint, -1, (3, module.num_heads, module.head_dim)).transpose(-4, -2)
        q, k, v = (by_head.select(-3, which) for which in range(3))  # each [n, heads, positions, channels of a head]
        added = additive_mask(query, mask, padding, module.num_heads) if masked else None
        attended = module.out_proj(F.scaled_dot_product_attention(q, k, v, added).transpose(-3, -2).flatten(-2))
        if not arguments["need_weights"]:
            return attended, None
        scores = q @ k.transpose(-2, -1) * module.head_dim**-0.5
        weights = (scores if added is None else scores + added).softmax(-1)
        return attended, weights.mean(-3) if arguments["average_attn_weights"] else weights

    return forward


def _layer(module: nn.Module, arguments: Mapping[str, Any]) -> Forward:
    assert isinstance(module, nn.TransformerEncoderLayer)
    masks = {"attn_mask": arguments["src_mask"], "key_padding_mask": arguments["src_key_padding_mask"]}

    def self_attention(x: Tensor) -> Tensor:
        return module.dropout1(module.self_attn(x, x, x, need_weights=False, **masks)[0])

    def mlp(x: Tensor) -> Tensor:
        return module.dropout2(module.linear2(module.dropout(module.activation(module.linear1(x)))))

    def norm_first(src: Tensor, *_: Any, **__: Any) -> Tensor:
        x = src + self_attention(module.norm1(src))
        return x + mlp(module.norm2(x))

    def norm_last(src: Tensor, *_: Any, **__: Any) -> Tensor:
        x = module.norm1(src + self_attention(src))
        return module.norm2(x + mlp(x))

    return norm_first if module.norm_first else norm_last


def _encoder(module: nn.Module, arguments: Mapping[str, Any]) -> Forward | None:
    assert isinstance(module, nn.TransformerEncoder)
    masks = {"src_mask": arguments["mask"], "src_key_padding_mask": arguments["src_key_padding_mask"]}
    if masks["src_key_padding_mask"] is not None and module.use_nested_tensor:
        return None

    def forward(src: Tensor, *_: Any, **__: Any) -> Tensor:
        for layer in module.layers:
            src = layer(src, **masks)
        return src if module.norm is None else module.norm(src)

    return forward


_TRACEABLE_FORWARDS: dict[type[nn.Module], Callable[[nn.Module, Mapping[str, Any]], Forward | None]] = {
    nn.MultiheadAttention: _attention,
    nn.TransformerEncoderLayer: _layer,
    nn.TransformerEncoder: _encoder,
}
