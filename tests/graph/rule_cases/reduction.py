"""Reductions, scans, softmax and norms."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from secateur.graph.rules.base import names
from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import ROWS, X, aten, bools, integers, positive, whole

REDUCTIONS = [
    Case("sum", torch.sum, [X]),
    Case("sum", lambda x: x.sum(-1), [X], "one dimension"),
    Case("sum", lambda x: x.sum((0, 2), keepdim=True), [(2, 3, 4)], "keepdim"),
    Case("sum", lambda x: x.sum(0), [bools(*X)], "bools"),
    Case("sum", lambda x: x.sum(()), [X], "no dimension named"),
    Case("sum", lambda x: x.view(len(x), 2, -1).sum(1), [(2, 6)], "rows"),
    Case("sum", lambda x: x.view(len(x), 2, -1).sum(2), [(2, 6)], "columns"),
    Case("nansum", lambda x: x.nansum(1), [X]),
    Case("count_nonzero", lambda x: torch.count_nonzero(x, 1), [bools(*X)]),
    Case("any", lambda x: x.any(1), [bools(3, 2)]),
    Case("linalg_vector_norm", lambda x: torch.linalg.vector_norm(x, dim=1), [X]),
    Case("linalg_vector_norm", lambda x: torch.linalg.vector_norm(x, 1, dim=1), [X], "one"),
    Case("linalg_vector_norm", lambda x: torch.linalg.vector_norm(x, torch.inf, dim=1), [X], "largest"),
    Case("linalg_vector_norm", lambda x: torch.linalg.vector_norm(x, -1, dim=1), [X], "negative", mixed=[(0, 1)]),
    Case("linalg_vector_norm", lambda x: F.normalize(x), [X], "normalize"),
    Case("norm", lambda x: aten.norm(x, 2, [1]), [X]),
    Case("linalg__powsum", lambda x: aten.linalg__powsum(x, 3, [1]), [X]),
    Case("linalg__powsum", lambda x: aten.linalg__powsum(x, -2, [1]), [X], "negative", mixed=[(0, 1)]),
    Case("norm", lambda x: aten.norm(x, -2, [1], True), [X], "negative", mixed=[(0, 1)]),
    Case("linalg__powsum", lambda x: aten.linalg__powsum(x, 0, [1]), [X], "of order zero", mixed=[(0, 1)], deaf=[0]),
    *(
        case
        for name in names(
            "mean var std var_mean std_mean amax amin aminmax prod logsumexp argmax argmin median nanmedian mode"
        )
        for case in (
            Case(name, partial(getattr(torch, name), dim=1), [X], mixed=[(0, 1)]),
            Case(
                name,
                partial(getattr(torch, name), dim=-2, keepdim=True),
                [(2, 3, 4)],
                "keepdim",
                mixed=[(0, 1)],
            ),
        )
    ),
    *(
        Case(name, getattr(torch, name), [X], "everything", mixed=[(0, 0), (0, 1)])
        for name in names("mean var std var_mean max min prod argmax aminmax median")
    ),
    *(
        Case(name, partial(getattr(torch, name), dim=-1), [X], "one dimension", mixed=[(0, 1)])
        for name in ("max", "min")
    ),
    *(Case(name, getattr(torch, name), [X, (4,)], "two tensors") for name in ("maximum", "minimum")),
    Case("all", lambda x: x.all(1), [torch.arange(12).view(3, 4) % 5 != 2], mixed=[(0, 1)]),
    Case("all", torch.all, [torch.arange(4).view(2, 2) != 1], "everything", mixed=[(0, 0), (0, 1)]),
    Case("_aminmax", lambda x: aten._aminmax(x, 1), [X], mixed=[(0, 1)]),
    Case("amax", lambda x: x.amax((0, -1)), [(2, 3, 4)], "several", mixed=[(0, 0), (0, 2)]),
    Case("_softmax", lambda x: x.softmax(-1), [X], mixed=[(0, 1)]),
    Case("_softmax", lambda x: x.view(len(x), 2, -1).softmax(1), [(2, 6)], "rows"),
    Case("_softmax", lambda x: x.view(len(x), 2, -1).softmax(2), [(2, 6)], "columns", mixed=[(0, 1)]),
    Case("_log_softmax", lambda x: x.log_softmax(0), [X], mixed=[(0, 0)]),
    Case("_safe_softmax", lambda x: aten._safe_softmax(x, 1), [X], mixed=[(0, 1)]),
    Case("logcumsumexp", lambda x: x.logcumsumexp(1), [X], mixed=[(0, 1)]),
    Case("cummax", lambda x: x.cummax(1), [X], mixed=[(0, 1)]),
    Case("cummin", lambda x: x.cummin(1), [X], mixed=[(0, 1)]),
    Case("cumsum", lambda x: x.cumsum(1), [X]),
    Case("cumsum", lambda x: x.view(len(x), 2, -1).cumsum(1), [(2, 6)], "rows"),
    Case("cumsum", lambda x: x.view(len(x), 2, -1).cumsum(2), [(2, 6)], "columns"),
    Case("cumprod", lambda x: x.cumprod(-2), [X], mixed=[(0, 0)]),
    Case("cumprod", lambda x: x.view(len(x), 2, -1).cumprod(1), [(2, 6)], "rows"),
    Case("sort", torch.sort, [X], pinned={(0, 1): ALL}),
    Case("sort", lambda x: x.sort(dim=0, descending=True, stable=True), [X], "stable", pinned={(0, 0): ALL}),
    Case("sort", lambda x: x.argsort(0), [X], "argsort", pinned={(0, 0): ALL}),
    Case("sort", lambda x: x.view(len(x), 2, -1).sort(1), [(2, 6)], "rows"),
    Case("topk", lambda x: x.topk(2), [X], pinned={(0, 1): ALL}),
    Case("topk", lambda x: x.topk(2, 1), [(2, 3, 4)], "another dimension", pinned={(0, 1): ALL}),
    Case("kthvalue", lambda x: x.kthvalue(2), [X], pinned={(0, 1): ALL}),
    Case("kthvalue", lambda x: x.kthvalue(2, 0, True), [X], "keepdim", pinned={(0, 0): ALL}),
    Case("_sample_dirichlet", aten._sample_dirichlet, [positive(*X)], mixed=[(0, 1)], random=True, rejects=True),
    Case("renorm", lambda x: x.renorm(2, 1, 0.5), [(2, 3, 4)], mixed=[(0, 0), (0, 2)]),
    Case(
        "embedding_renorm",
        lambda w: aten.embedding_renorm_(w + 0, ROWS, 0.5, 2.0),
        [X],
        pinned={(0, 0): ALL},
        mixed=[(0, 1)],
    ),
    Case(
        "embedding_renorm",
        lambda w, i: aten.embedding_renorm_(w + 0, i, 0.5, 2.0),
        [X, integers(3, high=3)],
        "labelled index",
        pinned={(0, 0): ALL, (1, 0): ALL},
        mixed=[(0, 1)],
    ),
    Case("glu", F.glu, [(3, 8)]),
    Case("glu", lambda x: F.glu(x, 1), [(2, 6, 3)], "dim"),
    Case("glu", lambda x: F.glu(x).reshape(*x.shape[:2], 1), [(3, 4, 2)], "one gated index", pinned={(0, 2): [0, 1]}),
]

NORMS = [
    Case(
        "native_batch_norm",
        lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b),
        [(2, 3, 4), (3,), positive(3), (3,), (3,)],
        "eval",
    ),
    Case("native_batch_norm", lambda x, m, v: F.batch_norm(x, m, v), [X, (4,), positive(4)], "plain"),
    Case("batch_norm", whole(F.batch_norm), [(2, 4, 3), (4,), positive(4), (4,), (4,)], "as a whole"),
    Case("batch_norm", whole(F.batch_norm), [X, (4,), positive(4)], "as a whole, plain"),
    Case(
        "native_batch_norm",
        lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, training=True),
        [(2, 3, 4), (3,), positive(3), (3,), (3,)],
        "training",
        mixed=[(0, 0), (0, 2)],
        deaf=[1, 2],
    ),
    Case(
        "native_batch_norm",
        lambda x: F.instance_norm(x),
        [(2, 3, 4)],
        "instance norm",
        pinned={(0, 0): ALL},
        mixed=[(0, 2)],
    ),
    Case(
        "_native_batch_norm_legit",
        lambda x, w, b, m, v: aten._native_batch_norm_legit(x, w, b, m, v, False, 0.1, 1e-5)[0],
        [X, (4,), (4,), (4,), positive(4)],
    ),
    Case(
        "_native_batch_norm_legit",
        lambda x, w: aten._native_batch_norm_legit(x, w, None, True, 0.1, 1e-5)[0],
        [(4, 3), (3,)],
        "no statistics",
        mixed=[(0, 0)],
    ),
    Case(
        "_native_batch_norm_legit_no_training",
        lambda x, w, b, m, v: aten._native_batch_norm_legit_no_training(x, w, b, m, v, 0.1, 1e-5)[0],
        [X, (4,), (4,), (4,), positive(4)],
    ),
    Case(
        "_native_batch_norm_legit_functional",
        lambda x, w, b, m, v: aten._native_batch_norm_legit_functional(x, w, b, m, v, False, 0.1, 1e-5)[0],
        [X, (4,), (4,), (4,), positive(4)],
    ),
    Case(
        "_batch_norm_no_update",
        lambda x, w, b, m, v: aten._batch_norm_no_update(x, w, b, m, v, 0.1, 1e-5)[0],
        [X, (4,), (4,), (4,), positive(4)],
    ),
    Case(
        "_batch_norm_with_update_functional",
        lambda x, w, b, m, v: aten._batch_norm_with_update_functional(x, w, b, m, v, 0.1, 1e-5)[0],
        [(4, 3), (3,), (3,), (3,), positive(3)],
        mixed=[(0, 0)],
        deaf=[3, 4],
    ),
    Case(
        "_batch_norm_with_update",
        lambda x, w, b, m, v: aten._batch_norm_with_update(x, w, b, m, v, 0.1, 1e-5)[0],
        [(4, 3), (3,), (3,), (3,), positive(3)],
        mixed=[(0, 0)],
        deaf=[3, 4],
    ),
    Case(
        "native_group_norm",
        lambda x, w, b: F.group_norm(x, 2, w, b),
        [(2, 6, 3), (6,), (6,)],
        mixed=[(0, 1), (0, 2), (1, 0), (2, 0)],
    ),
    Case("native_group_norm", lambda x: F.group_norm(x, 1), [X], "one group", mixed=[(0, 1)]),
    Case(
        "native_layer_norm",
        lambda x, w, b: F.layer_norm(x, w.shape, w, b),
        [X, (4,), (4,)],
        mixed=[(0, 1), (1, 0), (2, 0)],
    ),
    Case(
        "native_layer_norm",
        lambda x: F.layer_norm(x, x.shape[1:]),
        [(2, 3, 4)],
        "two dimensions",
        mixed=[(0, 1), (0, 2)],
    ),
    Case("mean rsqrt", lambda x, w: F.rms_norm(x, w.shape, w), [X, (4,)], "rms norm", mixed=[(0, 1), (1, 0)]),
    Case("_weight_norm_interface", torch._weight_norm, [(3, 4, 2), (3, 1, 1)], mixed=[(0, 1), (0, 2)]),
    Case(
        "_weight_norm_interface",
        lambda v, g: torch._weight_norm(v, g, 2),
        [(3, 4, 2), (1, 1, 2)],
        "last",
        mixed=[(0, 0), (0, 1)],
    ),
]

CASES = [*REDUCTIONS, *NORMS]
