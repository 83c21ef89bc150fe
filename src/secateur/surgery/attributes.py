"""The integer attributes of modules, made true again after surgery. The only place that knows module classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from secateur.errors import PlanError
from secateur.graph.own_sizes import registered_update
from secateur.graph.walk import named_modules
from secateur.surgery import attribute_paths

_PARAMETRIZATIONS = ".parametrizations."


def check_attributes(model: nn.Module, attributes: Mapping[str, int]) -> None:
    """Check that a plan's attributes exist in the model and can be set.

    Args:
        model: the model.
        attributes: dotted path of an integer to its new value, such as ``module.attribute``,
            ``module.attribute[position]`` or ``module.config.attribute``.

    Raises:
        PlanError: a module or attribute is missing, isn't a whole number, or can't be set.
    """
    modules = dict(named_modules(model, all_names=True)) if attributes else {}
    for key in attributes:
        module, steps = attribute_paths.parse(modules, key)
        value: Any = module
        for step in steps:
            if not attribute_paths.has(value, step):
                raise PlanError(f"the plan sets {key!r}, which this {type(model).__name__} doesn't have")
            value = attribute_paths.get(value, step)
        if type(value) is not int:
            raise PlanError(f"the plan sets {key!r}, which is not a whole number in this {type(model).__name__}")
        descriptor = getattr(type(module), str(steps[0]), None)
        if isinstance(descriptor, property) and descriptor.fset is None:
            raise PlanError(f"the plan sets {key!r}, which is a property that can't be set")


def update_attributes(model: nn.Module, attributes: Mapping[str, int], shrunk: Iterable[str]) -> None:
    """Set a plan's attributes, then those of torch's own modules that follow from the new shapes.

    Args:
        model: the smaller model, its tensors already replaced.
        attributes: as for :func:`check_attributes`, which has passed. Settings that several modules share (a
            configuration) are copied before they are changed for one.
        shrunk: names of the parameters and buffers that became smaller.
    """
    modules = dict(named_modules(model, all_names=True))
    copies: attribute_paths.Copies = {}
    for key, value in attributes.items():
        attribute_paths.put(*attribute_paths.parse(modules, key), value, copies)
    with _evaluating(modules.values()):
        # Children come before their parents, whose sizes may follow from theirs.
        # What holds parameters in mappings of its own gives them names with more dots than there are modules.
        owners = _owners(shrunk) & modules.keys()
        for path in sorted(owners, key=lambda p: p.count(".") + bool(p), reverse=True):
            update = _update_for(type(modules[path]))
            if update is not None:
                update(modules[path])


@contextmanager
def _evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode: reading a parametrised weight in training may change it (a spectral norm's power iteration)."""
    # Not by eval(), which a class may define otherwise.
    flags = [(vars(module), module.training) for module in modules]
    for attributes, _ in flags:
        attributes["training"] = False
    try:
        yield
    finally:
        for attributes, training in reversed(flags):
            attributes["training"] = training


def _owners(names: Iterable[str]) -> set[str]:
    """Paths of the modules that hold these tensors, and of all modules above them."""
    owners: set[str] = set()
    for name in names:
        path = name.split(_PARAMETRIZATIONS)[0] if _PARAMETRIZATIONS in name else name.rpartition(".")[0]
        parts = path.split(".") if path else []
        owners.update(".".join(parts[:depth]) for depth in range(len(parts) + 1))
    return owners


def _update_for(cls: type[nn.Module]) -> Callable[[Any], None] | None:
    registered = registered_update(cls)
    return registered or next((_UPDATES[base] for base in cls.__mro__ if base in _UPDATES), None)


def _linear(m: nn.Linear) -> None:
    m.out_features, m.in_features = m.weight.shape


def _bilinear(m: nn.Bilinear) -> None:
    m.out_features, m.in1_features, m.in2_features = m.weight.shape


def _conv(m: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
    m.out_channels, m.in_channels = m.weight.shape[0], m.weight.shape[1] * m.groups


def _transposed_conv(m: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> None:
    m.in_channels, m.out_channels = m.weight.shape[0], m.weight.shape[1] * m.groups


def _batch_norm(m: nn.BatchNorm1d | nn.InstanceNorm1d) -> None:
    m.num_features = next(len(t) for t in (m.weight, m.bias, m.running_mean) if t is not None)


def _group_norm(m: nn.GroupNorm) -> None:
    m.num_channels = len(m.weight)


def _layer_norm(m: nn.LayerNorm | nn.RMSNorm) -> None:
    m.normalized_shape = tuple(m.weight.shape)


def _embedding(m: nn.Embedding | nn.EmbeddingBag) -> None:
    m.num_embeddings, m.embedding_dim = m.weight.shape


def _prelu(m: nn.PReLU) -> None:
    m.num_parameters = len(m.weight)


def _attention(m: nn.MultiheadAttention) -> None:
    separate = m.in_proj_weight is None
    query = m.q_proj_weight if separate else m.in_proj_weight
    inner = query.shape[0] if separate else query.shape[0] // 3
    m.embed_dim = query.shape[1]
    m.kdim, m.vdim = (m.k_proj_weight.shape[1], m.v_proj_weight.shape[1]) if separate else (m.embed_dim, m.embed_dim)
    m.num_heads = inner // m.head_dim  # whole heads leave; a head that shrinks has its head_dim in the plan


def _rnn(m: Any) -> None:
    m.input_size = m.weight_ih_l0.shape[1]
    m.hidden_size = m.weight_ih_l0.shape[0] // _GATES.get(m.mode, 1)
    if m.proj_size:
        m.proj_size = m.weight_hr_l0.shape[0]
    m.flatten_parameters()  # on a GPU the weights lie in one piece of memory


def _rnn_cell(m: nn.RNNCellBase) -> None:
    m.input_size, m.hidden_size = m.weight_ih.shape[1], m.weight_hh.shape[1]


def _transformer(m: nn.Transformer) -> None:
    if isinstance(m.encoder, nn.TransformerEncoder):
        attention = m.encoder.layers[0].self_attn
        m.d_model, m.nhead = attention.embed_dim, attention.num_heads


_GATES = {"LSTM": 4, "GRU": 3}

_UPDATES: dict[type[nn.Module], Callable[[Any], None]] = {
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.ConvTranspose1d: _transposed_conv,
    nn.ConvTranspose2d: _transposed_conv,
    nn.ConvTranspose3d: _transposed_conv,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    nn.InstanceNorm1d: _batch_norm,
    nn.InstanceNorm2d: _batch_norm,
    nn.InstanceNorm3d: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    nn.PReLU: _prelu,
    nn.MultiheadAttention: _attention,
    nn.RNNBase: _rnn,
    nn.RNNCellBase: _rnn_cell,
    nn.Transformer: _transformer,
}
