"""Medians, quantiles and intervals of what was measured. Pure."""

import random
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

RESAMPLES = 2000


class Interval(NamedTuple):
    """A figure with the interval that holds it at a confidence of 95 %."""

    value: float
    low: float
    high: float


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of ``values`` lie, between two neighbours if need be."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median_interval(values: Sequence[float]) -> Interval:
    """The median, and its 95 % interval by the bootstrap, the same at each call."""
    chance = random.Random(len(values))
    medians = [median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    return Interval(median(values), quantile(medians, 0.025), quantile(medians, 0.975))


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """The median of the ratios of each round's pair, with its 95 % interval.

    Pairs, because the two of one round met the same machine.
    """
    return median_interval([n / d for n, d in zip(numerators, denominators, strict=True)])
