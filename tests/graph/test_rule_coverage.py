"""Every ATen operator that a model can reach has a rule, or is among those that need none, for a reason given here."""

from __future__ import annotations

import re
from typing import Any

import torch

from secateur.graph.rules import find_rule
from secateur.graph.rules.base import names

aten: Any = torch.ops.aten

PATTERNS = re.compile("_backward|^_foreach_|^_fused_(ada|sgd)|^_test_|_jvp$")
"""Gradients (those of activations have a rule), optimisers, and torch's own tests."""

BELOW_OTHERS = names("""
_cholesky_solve_helper _chunk_cat _compute_linear_combination _conv_depthwise2d _copy_from _copy_from_and_resize
_fill_mem_eff_dropout_mask _fused_moving_avg_obs_fq_helper_functional _fw_primal_copy
_grid_sampler_2d_cpu_fallback _histogramdd_bin_edges _histogramdd_from_bin_cts _histogramdd_from_bin_tensors _lazy_clone
_logcumsumexp _make_dual _make_dual_copy _mps_convolution _mps_convolution_transpose _new_zeros_with_same_feature_meta
_nnpack_spatial_convolution _reshape_alias_copy _scaled_dot_product_attention_math_for_mps _slow_conv2d_forward _stack
_unsafe_masked_index _unsafe_masked_index_put_accumulate conv_depthwise3d convolution_overrideable
cudnn_convolution_transpose cudnn_grid_sampler miopen_convolution miopen_convolution_transpose miopen_ctc_loss
miopen_depthwise_convolution slow_conv3d_forward slow_conv_dilated2d slow_conv_dilated3d slow_conv_transpose2d
slow_conv_transpose3d
""")
"""Kernels that other operators call, or only compilers do."""

MEMORY = names("_pin_memory _resize_output resize resize_as set slice_inverse")
"""Operators that give a tensor other memory: the tracer takes what comes out for unknown."""

BOOKKEEPING = names("""
_amp_foreach_non_finite_check_and_unscale _amp_update_scale _convert_indices_from_coo_to_csr
_convert_indices_from_csr_to_coo _cudnn_rnn_flatten_weight _empty_per_channel_affine_quantized _foobar empty_quantized
_nested_compute_contiguous_strides_offsets _nested_get_max_seqlen _nested_get_min_seqlen _functional_assert_async
_functional_assert_scalar _functional_sym_constrain_range _functional_sym_constrain_range_for_size _is_any_true
_nested_get_jagged_dummy _nested_get_lengths _nested_get_offsets _nested_tensor_size _nested_tensor_storage_offsets
_nested_tensor_strides _philox_key_fold_in _philox_key_split _philox_normal _philox_uniform _standard_gamma_grad
_dirichlet_grad hash_tensor
""")
"""No layer's activations go through these."""


def test_every_operator_is_decided() -> None:
    undecided = _reachable() - {*BELOW_OTHERS, *MEMORY, *BOOKKEEPING}
    assert not undecided, f"give these a rule, or say here why they need none: {sorted(undecided)}"


def test_nothing_is_excused_in_vain() -> None:
    needless = {*BELOW_OTHERS, *MEMORY, *BOOKKEEPING} - _reachable()
    assert not needless, sorted(needless)


def _reachable() -> set[str]:
    """Operators without a rule that take tensors, give tensors, and aren't composed of others."""
    everything = (name.removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names() if "aten::" in name)
    seen = (overload for overload in everything if "out" not in overload.partition(".")[2] and _is_seen(overload))
    names = {overload.partition(".")[0] for overload in seen}
    return {name.removesuffix("_") for name in names if not PATTERNS.search(name) and find_rule(f"aten.{name}") is None}


def _is_seen(name: str) -> bool:
    """Whether the dispatch mode can meet an operator, given as ``add.Tensor``."""
    packet, _, overload = name.partition(".")
    if torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "CompositeImplicitAutograd"):
        return False
    schema = getattr(getattr(aten, packet), overload or "default")._schema
    takes = any("Tensor" in str(argument.type) for argument in schema.arguments)
    gives = any("Tensor" in str(result.type) for result in schema.returns)
    return takes and gives and torch._C._dispatch_has_kernel(f"aten::{name}")
