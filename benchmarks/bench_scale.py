"""How the analysis scales, and how long it takes beside Torch-Pruning.

    python benchmarks/bench_scale.py [--json PATH] [--no-peer]

Everything runs on one thread. Times are CPU seconds of the process, so that other work on the machine matters little:
the best of several runs or, in the comparison, medians of runs that alternate in one process, warmed up. Memory is the
peak of a fresh process, less that of one which only runs the forward pass (on Linux). The bounds:

- a decoder of a billion parameters on the meta device is traced, planned and pruned in 60 s and 4 GB, and then has
  exactly as many parameters as predicted;
- time is linear in depth: sixteen times the blocks, layers or steps take at most twenty times as long;
- the peak memory of trace, scores and plan is at most the forward pass's plus 300 MB;
- trace + scores + plan + apply takes at most 0.8 of the time that Torch-Pruning takes to build and prune, in the median
  over ordinary models (each in place, by magnitude, to half the channels);
- no case takes more than 30 s.

The exit status is 1 if one of them is missed. The comparison needs ``pip install torch-pruning==1.6.1``.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from models import (
    AttentionStack,
    CellLoop,
    Decoder,
    RecurrentStack,
    ResidualStack,
    TransformerBlock,
    VisionTransformer,
    resnet50,
)
from rich.console import Console
from rich.table import Table
from small_models import UNet, convolutional, mobile_net, perceptron, vgg
from torch import nn

import secateur
from secateur.importance import Magnitude, Random

Case = tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]


def image(size: int) -> Callable[[], torch.Tensor]:
    """One random image."""
    return lambda: torch.randn(1, 3, size, size)


STACKS: dict[str, tuple[Callable[[int], nn.Module], Callable[[], torch.Tensor]]] = {
    "residual blocks": (ResidualStack, image(8)),
    "attention blocks": (AttentionStack, lambda: torch.zeros(1, 8, dtype=torch.long)),
    "LSTM layers": (partial(RecurrentStack, kind=nn.LSTM), lambda: torch.randn(1, 4, 6)),
    "GRU layers": (partial(RecurrentStack, kind=nn.GRU), lambda: torch.randn(1, 4, 6)),
    "GRUCell steps": (CellLoop, lambda: torch.randn(1, 6)),
}
DEPTHS = (10, 20, 40, 80, 160)

ORDINARY: dict[str, Case] = {
    "ResNet-50": (resnet50, image(224)),
    "ResNet-50, 64 pixels": (resnet50, image(64)),
    "VGG-16": (vgg, image(224)),
    "MobileNetV2": (mobile_net, image(224)),
    "U-Net": (UNet, image(128)),
    "residual stack": (lambda: ResidualStack(20), image(16)),
    "small convolutional": (convolutional, image(32)),
    "larger convolutional": (partial(convolutional, (64, 128, 256, 512)), image(64)),
    "ViT-B/16": (VisionTransformer, image(224)),
    "ViT-S/16": (partial(VisionTransformer, 384, 12, 6), image(224)),
    "perceptron, 3 layers": (partial(perceptron, 16, 128, 128, 8), lambda: torch.randn(1, 16)),
    "perceptron, 9 layers": (partial(perceptron, 16, *[512] * 8, 8), lambda: torch.randn(1, 16)),
    "autoencoder": (partial(perceptron, 784, 512, 256, 64, 256, 512, 784), lambda: torch.randn(1, 784)),
}
MEMORY: dict[str, Case] = {
    **{name: ORDINARY[name] for name in ("ResNet-50", "VGG-16", "U-Net", "ViT-B/16", "perceptron, 9 layers")},
    "160 attention blocks": (partial(AttentionStack, 160), STACKS["attention blocks"][1]),
    "500 steps, 1,024 wide": (partial(CellLoop, 500, 1024), STACKS["GRUCell steps"][1]),
}
PEER_RUNS = 5
LINEAR, EXTRA_MB, SHARE, SECONDS, META_SECONDS, META_MB = 20.0, 300.0, 0.8, 30.0, 60.0, 4096.0


@dataclass
class Report:
    """Figures, and the bounds that they miss."""

    figures: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def bound(self, what: str, value: float, limit: float) -> None:
        """Note that a value should be at most the limit."""
        if value > limit:
            self.missed.append(f"{what}: {value:.3g}, bound {limit:g}")


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of this process for one run."""
    start = time.process_time()
    work()
    return time.process_time() - start


def analysed(model: nn.Module, x: torch.Tensor, *, inplace: bool = False) -> nn.Module:
    """Trace, score by magnitude, plan and prune to half the channels."""
    graph = secateur.trace(model, x)
    return secateur.apply(model, secateur.plan(graph, Magnitude()(graph, model), 0.5), inplace=inplace)


def by_peer(model: nn.Module, x: torch.Tensor) -> None:
    """The same by Torch-Pruning, in place; told of the head counts and of the layer that makes the outputs."""
    import torch_pruning

    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        x,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[[m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]],
        num_heads={m.qkv: m.heads for m in model.modules() if isinstance(m, TransformerBlock)},
    )
    pruner.step()


# --- the parts --------------------------------------------------------------------------------------------------------


def meta(report: Report, console: Console) -> None:
    """A billion parameters on the meta device, in a fresh process."""
    figures = child("meta", "")
    report.figures["meta"] = figures
    console.print(
        f"decoder on the meta device: {figures['parameters'] / 1e9:.2f} billion parameters, "
        f"{figures['groups']} groups; trace {figures['trace_s']:.1f} s, "
        f"plan {figures['plan_s']:.2f} s, apply {figures['apply_s']:.2f} s; "
        f"peak {figures['peak_mb']:.0f} MB; {figures['after']:,} parameters left, {figures['predicted']:,} predicted"
    )
    report.bound("meta: seconds", sum(figures[key] for key in ("trace_s", "plan_s", "apply_s")), META_SECONDS)
    report.bound("meta: peak MB", figures["peak_mb"], META_MB)
    report.bound("meta: parameters not as predicted", abs(figures["after"] - figures["predicted"]), 0)


def meta_figures() -> dict[str, Any]:
    """What the fresh process measures."""
    with torch.device("meta"):
        model, x = Decoder().eval(), torch.zeros(1, 128, dtype=torch.long)
    times = [time.process_time()]
    graph = secateur.trace(model, x)
    times.append(time.process_time())
    plan = secateur.plan(graph, Random(0)(graph, model), 0.5)
    times.append(time.process_time())
    small = secateur.apply(model, plan)
    times.append(time.process_time())
    names = ("trace_s", "plan_s", "apply_s")
    return {
        **{name: end - start for name, (start, end) in zip(names, pairwise(times), strict=True)},
        "parameters": sum(p.numel() for p in model.parameters()),
        "groups": len(graph.groups),
        "predicted": graph.cost({name: len(kept) for name, kept in plan.groups.items()}).parameters,
        "after": sum(p.numel() for p in small.parameters()),
        "peak_mb": peak_mb(),
    }


def depths(report: Report, console: Console) -> None:
    """Time against depth."""
    table = Table("trace + plan + apply, ms", *map(str, DEPTHS), "160 to 10", title="depth (CPU ms, one thread)")
    for name, (build, inputs) in STACKS.items():
        times = [depth_seconds(build(depth).eval(), inputs()) for depth in DEPTHS]
        ratio = times[-1] / times[0]
        report.figures.setdefault("depth_s", {})[name] = dict(zip(map(str, DEPTHS), times, strict=True))
        report.bound(f"{name}: time at 160 over time at 10", ratio, LINEAR)
        report.bound(f"{name}: seconds", max(times), SECONDS)
        table.add_row(name, *(f"{1000 * t:.0f}" for t in times), f"{ratio:.1f}")
    console.print(table)


def depth_seconds(model: nn.Module, x: torch.Tensor, runs: int = 4) -> float:
    """The best of several runs."""
    return min(seconds(lambda: analysed(model, x)) for _ in range(runs))


def memory(report: Report, console: Console) -> None:
    """Peak memory beyond the forward pass's."""
    table = Table("peak MB of a fresh process", "forward", "trace + scores + plan", "extra")
    for name in MEMORY:
        forward, full = (child(what, name)["peak_mb"] for what in ("forward", "plan"))
        report.figures.setdefault("extra_mb", {})[name] = full - forward
        report.bound(f"{name}: extra MB", full - forward, EXTRA_MB)
        table.add_row(name, f"{forward:.0f}", f"{full:.0f}", f"{full - forward:.0f}")
    console.print(table)


def memory_figures(what: str, name: str) -> dict[str, Any]:
    """What the fresh process measures."""
    build, inputs = MEMORY[name]
    model, x = build().eval(), inputs()
    if what == "forward":
        with torch.no_grad():
            model(x)
    else:
        graph = secateur.trace(model, x)
        secateur.plan(graph, Magnitude()(graph, model), 0.5)
    return {"peak_mb": peak_mb()}


def beside_peer(report: Report, console: Console) -> None:
    """Each model by either library, in turn, in this process."""
    table = Table("model", "Secateur", "with a copy", "Torch-Pruning", "ratio", title="medians, CPU ms, one thread")
    ratios = []
    for name, (build, inputs) in ORDINARY.items():
        model, x = build().eval(), inputs()
        ours, copied, theirs = (statistics.median(times) for times in alternated(model, x))
        ratios.append(ours / theirs)
        report.figures.setdefault("peer", {})[name] = {"secateur_s": ours, "copy_s": copied, "torch_pruning_s": theirs}
        report.bound(f"{name}: seconds", copied, SECONDS)
        table.add_row(name, *(f"{1000 * t:.1f}" for t in (ours, copied, theirs)), f"{ratios[-1]:.2f}")
    report.figures["peer_median_ratio"] = statistics.median(ratios)
    report.bound("median time, of Torch-Pruning's", statistics.median(ratios), SHARE)
    console.print(table)
    console.print(f"median ratio: {statistics.median(ratios):.2f}")


def alternated(model: nn.Module, x: torch.Tensor) -> tuple[list[float], list[float], list[float]]:
    """Seconds of Secateur in place, with a copy, and of Torch-Pruning; the first round warms up."""
    ours, copied, theirs = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(PEER_RUNS + 1):
            fresh = [copy.deepcopy(model) for _ in range(3)]
            ours.append(seconds(partial(analysed, fresh[0], x, inplace=True)))
            copied.append(seconds(partial(analysed, fresh[1], x)))
            theirs.append(seconds(partial(by_peer, fresh[2], x)))
    return ours[1:], copied[1:], theirs[1:]


# --- fresh processes --------------------------------------------------------------------------------------------------


def child(what: str, name: str) -> dict[str, Any]:
    """Figures from a fresh process."""
    command = [sys.executable, __file__, "--child", what, name]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def peak_mb() -> float:
    """Peak resident megabytes of this process; not getrusage's, which includes those of the one that started it."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak[1]) / 1024


def main() -> int:
    """Measure, print tables and the bounds missed, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--no-peer", action="store_true", help="leave out the comparison with Torch-Pruning")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        what, name = arguments.child
        print(json.dumps(meta_figures() if what == "meta" else memory_figures(what, name)))
        return 0
    report, console = Report({"threads": 1, "torch": torch.__version__}), Console()
    for part in (meta, depths, memory, *(() if arguments.no_peer else (beside_peer,))):
        part(report, console)
    report.figures["missed"] = report.missed
    console.print("\n".join(f"missed: {line}" for line in report.missed) or "all bounds are met")
    if arguments.json:
        arguments.json.write_text(json.dumps(report.figures, indent=2) + "\n")
    return bool(report.missed)


if __name__ == "__main__":
    sys.exit(main())
