"""What the papers' equations are made of, in NumPy, for sequences without padding."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from stapes.adapters.layers import StridedConv, TransformerLayer
from stapes.adapters.transformer import Projection

erf = np.vectorize(math.erf)


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def norm(x: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return scaled * numbers(layer.weight) + numbers(layer.bias)


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ numbers(layer.weight).T + numbers(layer.bias)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """softmax(q k^T / sqrt(width)) v, every head on its own columns, side by side."""
    split = [np.split(x, heads, axis=1) for x in (q, k, v)]
    return np.concatenate([softmax(a @ b.T / math.sqrt(a.shape[1])) @ c for a, b, c in zip(*split, strict=True)], axis=1)


def conv(x: np.ndarray, layer: nn.Conv1d) -> np.ndarray:
    """out_i = b + sum_j W_j x_{i s + j - k // 2}, zeros beyond either end, for each group of channels on its own."""
    W, b, (k,), (s,) = numbers(layer.weight), numbers(layer.bias), layer.kernel_size, layer.stride
    padded = np.pad(x, ((k // 2, k), (0, 0)))
    found = []
    for start in range(0, len(x), s):
        groups = np.split(padded[start : start + k], layer.groups, axis=1)
        kernels = np.split(W, layer.groups)
        found.append(b + np.concatenate([np.einsum("oik,ki->o", w, g) for w, g in zip(kernels, groups, strict=True)]))
    return np.stack(found)


def strided_conv(x: np.ndarray, layer: StridedConv) -> np.ndarray:
    return gelu(conv(x, layer.conv))


def rotary(x: np.ndarray) -> np.ndarray:
    """(K, C) as C / 2 complex numbers, number c of step t turned by t 10000^(-2c / C)."""
    K, C = x.shape
    turn = np.exp(1j * np.arange(K)[:, None] * 10_000.0 ** (-2 * np.arange(C // 2) / C))
    turned = (x[:, : C // 2] + 1j * x[:, C // 2 :]) * turn
    return np.concatenate([turned.real, turned.imag], axis=1)


def transformer_layer(x: np.ndarray, layer: TransformerLayer) -> np.ndarray:
    """x + out(attention(norm(x))), then x + ffn(norm(x)); every head on its own columns."""
    C = x.shape[1] // layer.heads
    q, k, v = np.split(linear(norm(x, layer.attention_norm), layer.qkv), 3, axis=1)
    heads = []
    for columns in (slice(head * C, (head + 1) * C) for head in range(layer.heads)):
        scores = rotary(q[:, columns]) @ rotary(k[:, columns]).T / math.sqrt(C)
        heads.append(softmax(scores) @ v[:, columns])
    x = x + linear(np.concatenate(heads, axis=1), layer.out)
    return x + linear(gelu(linear(norm(x, layer.ffn_norm), layer.ffn_in)), layer.ffn_out)


def stacked(h: np.ndarray, k: int) -> np.ndarray:
    """[h_{ik}; ...; h_{ik+k-1}], the last group filled up with zeros."""
    h = np.concatenate([h, np.zeros((-len(h) % k, h.shape[1]), np.float32)])
    return np.stack([np.concatenate(list(h[i : i + k])) for i in range(0, len(h), k)])


def post_norm_layer(x: np.ndarray, layer: nn.Module, h: np.ndarray | None = None) -> np.ndarray:
    """norm(x + attention(x, x)), with frames h also norm(x + attention(x, h)), then norm(x + ffn(x))."""
    own = layer.attention
    q, k, v = np.split(linear(x, own.read), 3, axis=1)
    x = norm(x + linear(attention(q, k, v, own.heads), own.out), layer.attention_norm)
    if h is not None:
        cross = layer.cross_attention
        k, v = np.split(linear(h, cross.read), 2, axis=1)
        x = norm(x + linear(attention(linear(x, cross.query), k, v, cross.heads), cross.out), layer.cross_norm)
    return norm(x + linear(gelu(linear(x, layer.ffn_in)), layer.ffn_out), layer.ffn_norm)


def transformer(x: np.ndarray, steps: Iterable[nn.Module]) -> np.ndarray:
    """Projections, norm(W x + b) where the widths differ, and post-norm layers, one after the other."""
    for step in steps:
        if not isinstance(step, Projection):
            x = post_norm_layer(x, step)
        elif not isinstance(step.project, nn.Identity):
            x = norm(linear(x, step.project[0]), step.project[1])
    return x


def q_former(h: np.ndarray, module: nn.Module) -> np.ndarray:
    """(Q, C): the learned queries, normed, through layers that read the frames h."""
    x = norm(numbers(module.queries), module.norm)
    for layer in module.layers:
        x = post_norm_layer(x, layer, h)
    return x


# -- transformers' modules with the weights of ours ----------------------------------------------------------------------


def lend_attention(theirs: nn.Module, ours: nn.Module) -> None:
    """Give their attention (a BertSelfAttention's three matrices) the weights of ours."""
    for kind in ("weight", "bias"):
        parts = ours.read.get_parameter(kind).split(ours.out.in_features)
        if ours.query is not None:
            parts = (ours.query.get_parameter(kind), *parts)
        for name, part in zip(("query", "key", "value"), parts, strict=True):
            getattr(theirs, name).get_parameter(kind).copy_(part)


def lend_q_former(theirs: nn.Module, ours: nn.Module) -> None:
    """Give a Blip2QFormerModel the weights of our QFormer; the queries are its argument."""
    theirs.layernorm.load_state_dict(ours.norm.state_dict())
    for block, layer in zip(theirs.encoder.layer, ours.layers, strict=True):
        lend_attention(block.attention.attention, layer.attention)
        lend_attention(block.crossattention.attention, layer.cross_attention)
        block.attention.output.dense.load_state_dict(layer.attention.out.state_dict())
        block.attention.output.LayerNorm.load_state_dict(layer.attention_norm.state_dict())
        block.crossattention.output.dense.load_state_dict(layer.cross_attention.out.state_dict())
        block.crossattention.output.LayerNorm.load_state_dict(layer.cross_norm.state_dict())
        block.intermediate_query.dense.load_state_dict(layer.ffn_in.state_dict())
        block.output_query.dense.load_state_dict(layer.ffn_out.state_dict())
        block.output_query.LayerNorm.load_state_dict(layer.ffn_norm.state_dict())
