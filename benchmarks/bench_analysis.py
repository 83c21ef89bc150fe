"""What the analysis costs: time against forward passes, peak memory, and growth with depth.

    python benchmarks/bench_analysis.py [--json PATH]

Each figure is the best of several runs on one thread; memory is the peak of a fresh process (on Linux). The bounds:
trace + plan + apply takes at most 4 forward passes plus the time to copy the parameters; the trace needs at most 200 MB
more than a forward pass; doubling the depth of a residual stack doubles the time, within 20 %.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from models import ResidualStack, VisionTransformer, resnet50
from rich.console import Console
from rich.table import Table

import secateur
from secateur.importance import Random

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "ResNet-50": resnet50,
    "ViT-B/16": lambda: VisionTransformer().eval(),
}
DEPTHS = (20, 40, 80, 160)
RUNS = 7


def best(work: Callable[[], Any], runs: int = RUNS) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def analyse(model: torch.nn.Module, x: torch.Tensor) -> torch.nn.Module:
    """Trace, plan and apply at half the channels."""
    graph = secateur.trace(model, x)
    return secateur.apply(model, secateur.plan(graph, Random(0)(graph, model), 0.5))


def times(name: str) -> dict[str, float]:
    """Seconds of one model's forward pass, parameter copy and analysis."""
    model, x = MODELS[name](), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        forward = best(lambda: model(x))
    copy = best(lambda: [p.detach().clone() for p in model.parameters()])
    analysis = best(lambda: analyse(model, x))
    return {
        "forward_s": forward,
        "copy_s": copy,
        "analysis_s": analysis,
        "forwards": (analysis - copy) / forward,
    }


def peak_memory(name: str, what: str) -> float:
    """Peak resident megabytes of a fresh process that runs one forward pass, or traces."""
    command = [sys.executable, __file__, "--child", name, what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(name: str, what: str) -> None:
    """One forward pass or one trace; prints the peak resident megabytes of this process."""
    model, x = MODELS[name](), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        if what == "forward":
            model(x)
        else:
            secateur.trace(model, x)
    # Not getrusage's maximum, which a process inherits from the one that started it.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(int(peak[1]) / 1024)


def growth() -> dict[int, float]:
    """Seconds of trace + plan + apply for residual stacks of several depths."""
    x = torch.randn(1, 3, 8, 8)
    return {depth: best(partial(analyse, ResidualStack(depth).eval(), x)) for depth in DEPTHS}


def main() -> None:
    """Measure, print tables, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        child(*arguments.child)
        return
    console = Console()
    result: dict[str, Any] = {"threads": 1, "torch": torch.__version__, "models": {}}
    table = Table(
        "model", "forward ms", "copy ms", "trace + plan + apply ms", "forwards", "extra MB", title="one thread"
    )
    for name in MODELS:
        figures = times(name)
        figures["extra_mb"] = peak_memory(name, "trace") - peak_memory(name, "forward")
        result["models"][name] = figures
        milliseconds = [f"{1000 * figures[key]:.0f}" for key in ("forward_s", "copy_s", "analysis_s")]
        table.add_row(name, *milliseconds, f"{figures['forwards']:.2f}", f"{figures['extra_mb']:.0f}")
    console.print(table)
    result["depth_s"] = growth()
    table = Table("residual blocks", "ms", "ratio to half the depth")
    for depth, seconds in result["depth_s"].items():
        half = result["depth_s"].get(depth // 2)
        table.add_row(str(depth), f"{1000 * seconds:.0f}", f"{seconds / half:.2f}" if half else "")
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
