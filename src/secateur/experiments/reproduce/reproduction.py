"""The whole experiment: train, prune by every method to every sparsity, find the smallest, gather what was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from secateur.allocation import Progress
from secateur.experiments.images import Images
from secateur.experiments.reproduce.checkpoints import trained
from secateur.experiments.reproduce.keys import Run, key_of
from secateur.experiments.reproduce.methods import FINISHES, SMALLEST
from secateur.experiments.reproduce.records import Record
from secateur.experiments.reproduce.runs import Dense, drawn, run
from secateur.experiments.reproduce.settings import Settings, Split
from secateur.experiments.run_cache import OnStep, RunCache
from secateur.experiments.unreachable import Unreachable, attempted, or_unreachable

_RESOLUTION = 0.01
"""How near to the largest sparsity that keeps the PSNR after training the bisection goes."""

_SMALLEST, _LARGEST = 0.5, 0.95
"""Between these sparsities it is looked for."""


@dataclass(frozen=True)
class Finished:
    """A model as it would be used: after the whole refit, and after fine-tuning if ``is_tuned``."""

    record: Record
    is_tuned: bool

    @property
    def psnr(self) -> float:
        """Over the test images, in dB."""
        return self.record.tuned if self.is_tuned and self.record.tuned is not None else self.record.psnr


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What was found.

    Attributes:
        name: of the data set.
        shape: height and width of an image.
        settings: what was asked.
        dense: seed to the dense model's PSNR over the test images, in dB.
        records: one for every seed, method, sparsity and arm that was reached.
        unreachable: one for every seed, method, sparsity and arm that wasn't.
        smallest: for every seed the smallest finished models found that keep the PSNR.
        originals: the images whose reconstructions are drawn, as in :class:`Record`.
        reconstructed: their reconstructions by the dense model of seed 0.
    """

    name: str
    shape: tuple[int, int]
    settings: Settings
    dense: dict[int, float]
    records: tuple[Record, ...]
    unreachable: tuple[Unreachable, ...]
    smallest: tuple[Finished, ...]
    originals: str
    reconstructed: str

    @property
    def title(self) -> str:
        """What tables are of."""
        seeds = "1 seed" if self.settings.seeds == 1 else f"mean of {self.settings.seeds} seeds (and range)"
        latent = "a linear latent layer" if self.settings.linear_latent else "ReLU"
        return f"Autoencoder with {latent} on {self.name}: test images, {seeds}"

    @property
    def is_fine_tuned(self) -> bool:
        """Whether any method was fine-tuned."""
        return any(record.tuned is not None for record in self.records)

    def of(self, *, method: str, refit: bool, target: float | None) -> list[Record]:
        """The records of one method at one sparsity, a seed after the other."""
        return [r for r in self.records if (r.method, r.refit, r.target) == (method, refit, target)]

    def missed(self, *, method: str, refit: bool, target: float | None) -> list[Unreachable]:
        """Why one method doesn't reach one sparsity, for every seed that it doesn't."""
        return [m for m in self.unreachable if (m.method, m.refit, m.target) == (method, refit, target)]

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON can hold it, without the images."""
        return {
            "dataset": self.name,
            "settings": asdict(self.settings),
            "dense": self.dense,
            "records": [record.as_data() for record in self.records],
            "unreachable": [asdict(missed) for missed in self.unreachable],
            "smallest": [{"fine-tuned": f.is_tuned, **f.record.as_data()} for f in self.smallest],
        }


def reproduce(
    images: Images, settings: Settings, out: Path, on_step: OnStep = lambda _name, _done, _total: None
) -> Reproduction:
    """Run all that is asked and isn't in ``out`` yet.

    Args:
        images: the data.
        settings: what to run.
        out: keeps checkpoints and the results of single runs.
        on_step: told of the progress: of the whole, of a training, and of a search.

    Raises:
        SecateurError: a file in ``out`` can't be read or written.
    """
    experiment = _Experiment(Split.of(images), settings, out, on_step)
    outcomes = [outcome for seed in range(settings.seeds) for outcome in experiment.outcomes(seed)]
    smallest = [found for seed in range(settings.seeds) for found in experiment.smallest(seed)]
    return Reproduction(
        name=images.name,
        shape=images.shape,
        settings=settings,
        dense={seed: experiment.dense(seed).psnr() for seed in range(settings.seeds)},
        records=tuple(each for each in outcomes if isinstance(each, Record)),
        unreachable=tuple(each for each in outcomes if isinstance(each, Unreachable)),
        smallest=tuple(smallest),
        originals=(experiment.split.drawn * 255).round().byte().numpy().tobytes().hex(),
        reconstructed=drawn(experiment.split, experiment.dense(0).model),
    )


def runs(settings: Settings) -> Iterator[Run]:
    """The runs for every seed, in order."""
    for refit in (False, True):
        for target in settings.sparsities:
            yield from (Run(method, refit, target) for method in settings.methods)
    yield from (Run(method, True, None) for method in settings.methods if method in SMALLEST)


class _Experiment:
    """Runs that are cached on disk, and their progress."""

    def __init__(self, split: Split, settings: Settings, out: Path, on_step: OnStep) -> None:
        self.split, self.settings, self.out, self.on_step = split, settings, out, on_step
        self._cache = RunCache(out / "runs", or_unreachable(Record.from_data))
        self._dense: dict[int, Dense] = {}
        self._done, self._total = 0, settings.seeds * len(list(runs(settings)))

    def dense(self, seed: int) -> Dense:
        if seed not in self._dense:
            model = trained(
                self.split.images,
                self.out / "checkpoints",
                seed=seed,
                epochs=self.settings.epochs,
                linear_latent=self.settings.linear_latent,
                on_epoch=lambda done, total: self.on_step(f"train, seed {seed}", done, total),
            )
            self._dense[seed] = Dense.of(seed, model, self.split)
        return self._dense[seed]

    def outcomes(self, seed: int) -> Iterator[Record | Unreachable]:
        for each in runs(self.settings):
            yield self.outcome(seed, each)
            self._done += 1
            self.on_step("runs", self._done, self._total)

    def outcome(self, seed: int, asked: Run) -> Record | Unreachable:
        dense = self.dense(seed)

        def on_progress(progress: Progress) -> None:
            self.on_step("search", progress.done, progress.total)

        def make() -> Record:
            return run(dense, asked.method, asked.target, self.settings, refit=asked.refit, on_progress=on_progress)

        def attempt() -> Record | Unreachable:
            outcome = attempted(make, method=asked.method, target=asked.target, refit=asked.refit, seed=seed)
            self.on_step("search", 1, 1)
            return outcome

        size = "smallest" if asked.target is None else f"{asked.target:g}"
        arm = "refit" if asked.refit else "plain"
        key = key_of(asked, seed, self.split.images.name, self.settings)
        return self._cache.get(f"seed-{seed}-{size}-{asked.method}-{arm}", key, attempt)

    def smallest(self, seed: int) -> Iterator[Finished]:
        """The smallest finished models that keep the PSNR over the held-out images."""
        for method, is_tuned in FINISHES:
            if method in self.settings.methods and (self.settings.fine_tune or not is_tuned):
                record = self._bisected(seed, method, is_tuned=is_tuned)
                if record is not None:
                    yield Finished(record, is_tuned)

    def _bisected(self, seed: int, method: str, *, is_tuned: bool) -> Record | None:
        least = self.dense(seed).held_out_psnr() - self.settings.drop
        best, low, high = None, _SMALLEST, _LARGEST
        while high - low > _RESOLUTION:
            middle = round((low + high) / 2, 3)
            found = self.outcome(seed, Run(method, True, middle))
            if isinstance(found, Record) and _after(found, is_tuned=is_tuned) >= least:
                best, low = found, middle
            else:
                high = middle
        return best


def _after(record: Record, *, is_tuned: bool) -> float:
    """PSNR over the held-out images of the finished model, in dB."""
    after = record.tuned_held_out if is_tuned else record.held_out
    assert after is not None
    return after
