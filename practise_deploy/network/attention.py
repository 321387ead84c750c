"""torch's attention and transformer encoders in operations that tracing can follow: their own forwards decide on values.

The same weights under the same names; dropout within the attention is that of eval mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Forward = Callable[..., Any]
_MASKS = ("mask", "src_mask", "src_key_padding_mask", "key_padding_mask", "attn_mask", "is_causal")


def decides_on_values(module: nn.Module) -> bool:
    """Whether it is one of those modules, as torch has them."""
    return type(module) in _PLAIN


def plain_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Forward | None:
    """A forward without decisions that gives what the module gives in this call; None where it is of another kind.

    Those are calls with masks, attention of one value to another, images along another axis than the first, and
    modules with hooks.
    """
    call = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    call.apply_defaults()
    masks = [call.arguments.get(name) for name in _MASKS]
    masked = any(mask is not None and mask is not False for mask in masks)
    if masked or module._forward_hooks or module._forward_pre_hooks:
        return None
    return _PLAIN[type(module)](module, call.arguments)


def _attention(module: nn.Module, given: Mapping[str, Any]) -> Forward | None:
    assert isinstance(module, nn.MultiheadAttention)
    to_itself = given["query"] is given["key"] is given["value"]
    of_one_kind = module.in_proj_weight is not None and module.bias_k is None and not module.add_zero_attn
    if not (to_itself and of_one_kind and module.batch_first):
        return None

    def forward(query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor | None]:
        """Shapes: [n, positions, channels] -> the same, and if wanted how much each position attends to each."""
        joint = F.linear(query, module.in_proj_weight, module.in_proj_bias)
        by_head = torch.unflatten(joint, -1, (3, module.num_heads, module.head_dim)).transpose(-4, -2)
        q, k, v = (by_head.select(-3, which) for which in range(3))  # each [n, heads, positions, channels of a head]
        found = module.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2))
        if not given["need_weights"]:
            return found, None
        weights = (q @ k.transpose(-2, -1) * module.head_dim**-0.5).softmax(-1)
        return found, weights.mean(-3) if given["average_attn_weights"] else weights

    return forward


def _layer(module: nn.Module, _: Mapping[str, Any]) -> Forward:
    assert isinstance(module, nn.TransformerEncoderLayer)

    def attended(x: Tensor) -> Tensor:
        return module.dropout1(module.self_attn(x, x, x, need_weights=False)[0])

    def through_perceptron(x: Tensor) -> Tensor:
        return module.dropout2(module.linear2(module.dropout(module.activation(module.linear1(x)))))

    def norm_first(src: Tensor, *_: Any, **__: Any) -> Tensor:
        x = src + attended(module.norm1(src))
        return x + through_perceptron(module.norm2(x))

    def norm_last(src: Tensor, *_: Any, **__: Any) -> Tensor:
        x = module.norm1(src + attended(src))
        return module.norm2(x + through_perceptron(x))

    return norm_first if module.norm_first else norm_last


def _encoder(module: nn.Module, _: Mapping[str, Any]) -> Forward:
    assert isinstance(module, nn.TransformerEncoder)

    def forward(src: Tensor, *_: Any, **__: Any) -> Tensor:
        for layer in module.layers:
            src = layer(src)
        return src if module.norm is None else module.norm(src)

    return forward


_PLAIN: dict[type[nn.Module], Callable[[nn.Module, Mapping[str, Any]], Forward | None]] = {
    nn.MultiheadAttention: _attention,
    nn.TransformerEncoderLayer: _layer,
    nn.TransformerEncoder: _encoder,
}
