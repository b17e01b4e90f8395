"""Figures: medians beside the baseline of the same run, and the budget they have to keep."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal


@dataclass(frozen=True)
class Budget:
    """What a figure may be at most: its median, or what it adds to, or is of, its baseline."""

    of: Literal["median", "difference", "ratio"]
    limit: float


@dataclass(frozen=True)
class Figure:
    """One line of the table: samples, and the samples of what they are compared with."""

    name: str
    unit: str
    samples: list[float]
    baseline: list[float] | None = None
    compared: Literal["difference", "ratio"] = "ratio"
    budget: Budget | None = None

    def value(self, of: Literal["median", "difference", "ratio"]) -> float:
        """Return the median, or its difference from, or its ratio to the baseline's median."""
        middle = median(self.samples)
        if of == "median":
            return middle
        if self.baseline is None:
            raise ValueError(f"{self.name} has no baseline")
        base = median(self.baseline)
        return middle - base if of == "difference" else middle / base

    @property
    def over(self) -> bool:
        """Whether the budget is exceeded."""
        return self.budget is not None and self.value(self.budget.of) > self.budget.limit

    def cells(self) -> list[str]:
        """Return the line as texts."""
        base = comparison = budget = ""
        if self.baseline is not None:
            base = f"{median(self.baseline):.2f}"
            comparison = _text(self.compared, self.value(self.compared), self.unit)
        if self.budget is not None:
            budget = f"<= {_text(self.budget.of, self.budget.limit, self.unit)}"
        verdict = "" if self.budget is None else "over" if self.over else "ok"
        middle = _text("median", self.value("median"), self.unit)
        return [self.name, str(len(self.samples)), middle, base, comparison, budget, verdict]


def _text(of: str, value: float, unit: str) -> str:
    if of == "ratio":
        return f"{value:.2f}x"
    return f"{value:{'+' if of == 'difference' else ''}.2f} {unit}"


_HEAD = ["", "n", "median", "baseline", "compared", "budget", "verdict"]


def show(figures: list[Figure]) -> str:
    """Return the table as text."""
    lines = [_HEAD, *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 0 < at < len(line) - 1 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def save(figures: list[Figure], path: Path) -> None:
    """Write the figures, with every sample, as JSON."""
    records = [
        {
            "name": figure.name,
            "unit": figure.unit,
            "median": figure.value("median"),
            "baseline": median(figure.baseline) if figure.baseline is not None else None,
            figure.compared: figure.value(figure.compared) if figure.baseline is not None else None,
            "budget": {"of": figure.budget.of, "limit": figure.budget.limit}
            if figure.budget is not None
            else None,
            "over": figure.over,
            "samples": figure.samples,
        }
        for figure in figures
    ]
    path.write_text(json.dumps(records, indent=1) + "\n")
