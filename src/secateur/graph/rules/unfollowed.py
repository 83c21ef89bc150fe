"""Operators whose indices are deliberately not followed: what goes in stays, and the reason says what to do."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph.labels import Factors
from secateur.graph.rules.base import OpCall, names, rule

# reason: the operators
UNFOLLOWED = {
    "quantised; prune the model before it is quantised": names("""
        quantized.* quantized_decomposed.* torchao.* bitsandbytes.* _convert_weight_to_int4pack
        _convert_weight_to_int4pack_for_cpu _dyn_quant_matmul_4bit _dyn_quant_pack_4bit_weight _int_mm
        _make_per_channel_quantized_tensor _make_per_tensor_quantized_tensor _mixed_dtypes_linear _scaled_grouped_mm
        _scaled_grouped_mm_v2 _scaled_mm _scaled_mm_v2 _weight_int4pack_mm _weight_int4pack_mm_for_cpu
        _weight_int4pack_mm_with_scales_and_zeros _weight_int8pack_mm dequantize int_repr q_per_channel_scales
        q_per_channel_zero_points quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic
        quantized_batch_norm quantized_gru quantized_lstm quantized_max_pool1d quantized_max_pool2d
        quantized_max_pool3d
    """),
    "a sparse tensor, whose indices aren't followed; make it dense while pruning": names("""
        _coalesce _coalesced _cslt_compress _cslt_sparse_mm _indices _indices_copy
        _sparse_broadcast_to _sparse_broadcast_to_copy _sparse_compressed_tensor_with_dims
        _sparse_coo_tensor_with_dims_and_tensors _sparse_csr_prod _sparse_csr_sum _sparse_log_softmax
        _sparse_mask_projection _sparse_mm_reduce_impl _sparse_semi_structured_addmm _sparse_semi_structured_apply
        _sparse_semi_structured_apply_dense _sparse_semi_structured_linear _sparse_semi_structured_mm
        _sparse_semi_structured_tile _sparse_softmax _sparse_sparse_matmul _sparse_sum _spdiags _spsolve _to_dense
        _to_sparse _to_sparse_bsc _to_sparse_bsr _to_sparse_csc _to_sparse_csr _to_sparse_semi_structured _values
        _values_copy ccol_indices ccol_indices_copy col_indices col_indices_copy copy_sparse_to_sparse crow_indices
        crow_indices_copy hspmm indices indices_copy native_norm resize_as_sparse row_indices row_indices_copy
        sparse_compressed_tensor sparse_coo_tensor sparse_mask sparse_resize sparse_resize_and_clear
        sparse_sampled_addmm values values_copy
    """),
    "a nested tensor, whose indices aren't followed; pad it while pruning": names("""
        _jagged_to_padded_dense_forward _nested_from_padded _nested_from_padded_and_nested_example
        _nested_from_padded_tensor _nested_get_values _nested_get_values_copy _nested_tensor_from_mask
        _nested_tensor_from_tensor_list _nested_tensor_softmax_with_shape _nested_view_from_buffer
        _nested_view_from_buffer_copy _nested_view_from_jagged _nested_view_from_jagged_copy
        _padded_dense_to_jagged_forward to_padded_tensor
    """),
    "converted to mkldnn; prune the model before": names("""
        _mkldnn_reshape _mkldnn_transpose mkldnn_adaptive_avg_pool2d mkldnn_linear mkldnn_max_pool2d
        mkldnn_max_pool3d mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight to_mkldnn
    """),
    "a fused attention, whose parts aren't seen; use scaled_dot_product_attention": names("""
        _cudnn_attention_forward _efficient_attention_forward _flash_attention_forward
        _flash_attention_forward_no_dropout_inplace _masked_softmax _native_multi_head_attention
        _transform_bias_rescale_qkv _transformer_encoder_layer_fwd _triton_multi_head_attention
        _triton_scaled_dot_attention
    """),
    "a fused recurrent layer, whose steps aren't seen; turn off the library that runs it": names("""
        _cudnn_rnn _lstm_mps miopen_rnn mkldnn_rnn_layer
    """),
    "a fused layer, whose parts aren't seen; use the layers themselves": names("""
        cudnn_convolution_add_relu cudnn_convolution_relu miopen_convolution_add_relu miopen_convolution_relu
    """),
    "statistics shared between processes; trace in eval mode": names("""
        batch_norm_elemt batch_norm_gather_stats batch_norm_gather_stats_with_counts batch_norm_stats
        batch_norm_update_stats
    """),
    "a gradient taken inside the model; the layer's own gradients aren't followed": names("""
        _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward _cdist_backward _fused_rms_norm_backward
        _log_softmax_backward_data _pdist_backward _softmax_backward_data _weight_norm_interface_backward
        adaptive_max_pool2d_backward adaptive_max_pool3d_backward avg_pool2d_backward avg_pool3d_backward
        binary_cross_entropy_backward convolution_backward cudnn_batch_norm_backward embedding_dense_backward
        glu_backward grid_sampler_2d_backward grid_sampler_3d_backward huber_loss_backward log_sigmoid_backward
        max_pool2d_with_indices_backward max_pool3d_with_indices_backward mse_loss_backward
        native_batch_norm_backward native_group_norm_backward native_layer_norm_backward nll_loss2d_backward
        nll_loss_backward reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward
        replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward
        _scaled_dot_product_cudnn_attention_backward _scaled_dot_product_efficient_attention_backward
        _scaled_dot_product_flash_attention_backward _scaled_dot_product_flash_attention_for_cpu_backward
        select_backward slice_backward smooth_l1_loss_backward soft_margin_loss_backward
        upsample_bicubic2d_backward upsample_bilinear2d_backward upsample_linear1d_backward
        upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward
        upsample_trilinear3d_backward
    """),
}


def _unfollowed(call: OpCall, *, reason: str) -> Sequence[Factors]:
    """Everything stays."""
    call.fix_all(call.tensors(), reason)
    return [() for _ in call.outputs]


for _reason, _operators in UNFOLLOWED.items():
    rule(*_operators, reason=_reason)(_unfollowed)
