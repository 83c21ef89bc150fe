"""Functions with sizes of their own: convolutions, recurrent layers, norms, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from secateur.graph import algebra
from secateur.graph.handlers.ties import size_given, telling, tie, tie_to_constant
from secateur.graph.kernels import without_mkldnn
from secateur.graph.labels import Factor, labels_along
from secateur.graph.rules.base import names
from secateur.graph.torch_calls import Called, handles, note_numbers
from secateur.graph.traced_size import TracedSize
from secateur.graph.tracer import Tracer


@handles(F.conv1d, F.conv2d, F.conv3d, arguments="input weight bias stride padding dilation groups")
@handles(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
         arguments="input weight bias stride padding output_padding groups")  # fmt: skip
def _convolution(call: Called) -> Any:
    """Where ``groups`` is an attribute of the user's own module, it follows the whole convolution groups that leave."""
    tracer, groups = call.tracer, call.get("groups")
    if not isinstance(groups, TracedSize):
        return call.run()
    with telling(tracer, resizable=True), tracer.counting() as counted:
        result = call.run()
    if "groups" in counted:
        tie(tracer, counted["groups"], groups, f"number of groups of {call.name}")
    else:
        tie_to_constant(tracer, groups, f"number of groups of {call.name}")
    return result


@handles(F.linear, arguments="input weight bias")
def _linear(call: Called) -> Any:
    arguments = (call["input"], call["weight"], call.get("bias"))
    if not call.tracer.runs_whole(arguments):
        return call.run()
    return call.tracer.run_whole(torch.ops.aten.linear.default, *arguments)


@handles(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu, arguments="")
def _recurrent(call: Called) -> Any:
    with without_mkldnn():
        return call.run()


@handles(
    torch.take_along_dim, torch.Tensor.take_along_dim, torch.quantile, torch.Tensor.quantile,
    torch.nanquantile, torch.Tensor.nanquantile, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__,
    torch.Tensor.__rmatmul__, torch.einsum, torch.functional.einsum,
    arguments="",
)  # fmt: skip
def _expanded_to_each_other(call: Called) -> Any:
    """One of the tensors may be expanded to another's size."""
    return _run_telling(call, expanding=True)


@handles(
    torch._VF._pad_packed_sequence, F.dropout1d, F.dropout2d, F.dropout3d, F.feature_alpha_dropout,
    torch.feature_dropout, torch.feature_alpha_dropout, torch.stft, torch.Tensor.stft, torch.istft, torch.Tensor.istft,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
    arguments="",
)  # fmt: skip
def _own_sizes(call: Called) -> Any:
    """Composed of operators whose integers, but for those given, all come from the shapes of what goes in."""
    return _run_telling(call, resizable=True)


def _run_telling(call: Called, **values: bool) -> Any:
    """Run a composed function, its sizes noted, while the rules of its operators are told something."""
    note_numbers(call.func, (*call.args, *call.kwargs.values()))
    with telling(call.tracer, **values):
        return call.run()


@handles(F.layer_norm, F.rms_norm, arguments="input normalized_shape weight")
def _layer_norm(call: Called) -> Any:
    tracer, tensor, shape = call.tracer, call["input"], call["normalized_shape"]
    counted = tracer.in_own_sizes and not tracer.holds("weight", call.get("weight"))
    first = tensor.dim() - len(shape)
    for position, size in enumerate(shape):
        labels = labels_along(tracer.labels_of(tensor), first + position)
        if labels is not None and counted:
            tracer.count_by(f"normalized_shape[{position}]", labels)
        size_given(tracer, tensor, first + position, size, call.name)
    return call.run()


@handles(F.batch_norm, arguments="input running_mean running_var weight bias training momentum eps")
@handles(F.instance_norm, arguments="input running_mean running_var weight")
@handles(F.group_norm, torch.group_norm, arguments="input num_groups weight")
def _channel_norm(call: Called) -> Any:
    """Where a module doesn't hold parameters or statistics, only its attribute says how many channels there are."""
    if isinstance(call.get("num_groups"), TracedSize):
        tie_to_constant(call.tracer, call["num_groups"], f"number of groups of {call.name}")
    if call.tracer.in_own_sizes and not any(call.tracer.holds(n, call.get(n)) for n in ("weight", "running_mean")):
        labels = labels_along(call.tracer.labels_of(call["input"]), 1)
        if labels is not None:
            call.tracer.count_by("num_channels" if "group" in call.name else "num_features", labels)
    return _batch_norm(call) if call.func is F.batch_norm and not call.get("training") else call.run()


def _batch_norm(call: Called) -> Any:
    """In evaluation: a single operator, without the empty tensors that training would fill."""
    tensors = tuple(call.get(name) for name in ("input", "weight", "bias", "running_mean", "running_var"))
    if not call.tracer.runs_whole(tensors):
        return call.run()
    settings = False, call.get("momentum", default=0.1), call.get("eps", default=1e-5), torch.backends.cudnn.enabled
    return call.tracer.run_whole(torch.ops.aten.batch_norm.default, *tensors, *settings)


@handles(F.scaled_dot_product_attention, arguments="query key value attn_mask dropout_p is_causal")
def _own_scale(call: Called) -> Any:
    """Without a scale, queries and keys are divided by the square root of their width, in whichever kernel."""
    tracer, query = call.tracer, call["query"]
    if call.get("scale") is None:
        linear = tracer.scales(query) and tracer.scales(call["key"])
        for factor in tracer.labels_of(query):
            if query.dim() - 1 in factor.dims:
                reason = f"scaled by its own width in scaled_dot_product_attention ({tracer.where()})"
                tracer.mix(factor.labels, reason, by_width=linear)
    return call.run()


@handles(
    F.multi_head_attention_forward,
    arguments="query key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v add_zero_attn "
    "dropout_p out_proj_weight out_proj_bias",
)
def _attention(call: Called) -> Any:
    """Whole heads leave, so that the head width and its scale stay; inner width and embedding shrink alike."""
    tracer, query, out_weight = call.tracer, call["query"], call["out_proj_weight"]
    width = query.size(-1) // call["num_heads"]
    makers = names("in_proj_weight in_proj_bias bias_k bias_v q_proj_weight k_proj_weight v_proj_weight")
    for tensor in map(call.get, makers):
        if tensor is not None:
            _coarsen(tracer, tensor, tensor.dim() - 1 if tensor.dim() == 3 else 0, width)
    _coarsen(tracer, out_weight, 1, width)
    # The number of heads follows, also where a mask is expanded to it.
    with telling(tracer, resizable=True):
        result = call.run()
    inner, outer = labels_along(tracer.labels_of(out_weight), 1), labels_along(tracer.labels_of(query), query.dim() - 1)
    reason = f"width of nn.MultiheadAttention and of its input ({tracer.where()})"
    if inner is not None:
        if outer is None or not tracer.in_own_sizes:
            tracer.facts.fix(inner, f"{algebra.NO_INDEX}: {reason}")
        else:
            tracer.facts.same_count(inner, outer, reason)
    return result


def _coarsen(tracer: Tracer, tensor: torch.Tensor, axis: int, width: int) -> None:
    """From here on, blocks of ``width`` consecutive indices of a parameter axis leave together."""
    factors = []
    for factor in tracer.labels_of(tensor):
        if factor.dims == (axis,):
            blocks = factor.labels.reshape(-1, width)
            tracer.facts.equate(blocks, blocks[:, :1], f"whole heads leave ({tracer.where()})")
            factor = Factor((axis,), np.repeat(blocks[:, 0], width))
        factors.append(factor)
    tracer.set_labels(tensor, tuple(factors))
