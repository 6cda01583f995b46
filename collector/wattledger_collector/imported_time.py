"""Times of a host that imports of other meters have booked, and which of its channels' energy they keep out.

No clock, no store: spans of UTC in, answers out. What an import has booked, no epoch books again: the ledger asks here for
each increment, and leaves one that meets such a span in a gap, as it does where epochs overlap. Sources of truth: the host's
row (`records.Host.imported`), and the agent's rules of the accounted cut for what a channel holds.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from wattledger_collector.records import (
    IMPORTED_COMPONENT_ALL,
    NANOSECONDS_PER_SECOND,
    ChannelInfo,
    Component,
    ImportedSpan,
    Method,
    Role,
)

# About 12 bytes each in a host's row, which each of its bookings writes anew: 12 kB at worst, where a batch has as much.
IMPORTED_SPANS_MAX = 1024

# Half-open, seconds of UTC.
Times = Iterable[tuple[int, int]]


class ImportedTime:
    """What imports have booked of a host, asked by the channels of one epoch.

    spans: as the host's row has them. channels: the epoch's catalog, which says what its meters' residuals are without.
    """

    def __init__(self, spans: Sequence[ImportedSpan], channels: Mapping[int, ChannelInfo]) -> None:
        self._spans = spans
        self._components = sorted({span.component for span in spans})
        self._leaves = leaf_components(channels.values())

    def holds(self, info: ChannelInfo, pieces: Iterable[tuple[int, int]]) -> bool:
        """Whether an import has booked, for this channel, a part of any of the half-open spans (from, to] of UTC.

        Nanoseconds; a span that is empty or runs backwards is the instant of its end.
        """
        components = [each for each in self._components if is_kept_out(each, info, self._leaves)]
        return bool(components) and any(self._meets(each, *piece) for piece in pieces for each in components)

    def holds_component(self, component: Component, from_utc: int, to_utc: int) -> bool:
        """The same for what workloads used of a component, over all of its channels."""
        return any(
            self._meets(each, from_utc, to_utc)
            for each in self._components
            if each in (IMPORTED_COMPONENT_ALL, component)
            or (component is Component.OTHER and Component(each) not in self._leaves)
        )

    def _meets(self, component: int, from_utc: int, to_utc: int) -> bool:
        start = min(from_utc, to_utc - 1)
        # Spans of one component lie apart, so that they end in the order in which they begin.
        after = (component, start // NANOSECONDS_PER_SECOND)
        place = bisect_right(self._spans, after, key=lambda span: (span.component, span.to_seconds))
        if place == len(self._spans):
            return False
        span = self._spans[place]
        return span.component == component and span.from_seconds * NANOSECONDS_PER_SECOND < to_utc


def leaf_components(channels: Iterable[ChannelInfo]) -> frozenset[Component]:
    """The components that an epoch meters by themselves now, so that no residual of its meters holds them."""
    return frozenset(info.component for info in channels if info.role is Role.LEAF and not info.closed)


def is_kept_out(component: int, info: ChannelInfo, leaves: frozenset[Component]) -> bool:
    """Whether an import of a component (or of all of them) has what this channel of an epoch with these leaves books.

    A channel of the component does. Where the epoch does not meter the component by itself, what is left of a node's meter
    holds it too, and so does what stands for a whole node; but a modelled node is one without its GPUs and accelerators.
    """
    if not info.is_booked:
        return False
    if component in (IMPORTED_COMPONENT_ALL, info.component):
        return True
    if Component(component) in leaves:
        return False
    if info.method is Method.MODEL and component in (Component.GPU, Component.ACCELERATOR):
        return False
    return info.role is Role.RESIDUAL or info.component is Component.OTHER


def without_holes(from_seconds: int, to_seconds: int, holes: Times) -> list[tuple[int, int]]:
    """The spans of a series that lie between its holes; seconds."""
    spans: list[tuple[int, int]] = []
    at = from_seconds
    for start, end in sorted(holes):
        if start > at:
            spans.append((at, start))
        at = max(at, end)
    if at < to_seconds:
        spans.append((at, to_seconds))
    return spans


def imported_spans(booked: Iterable[tuple[int, Times]]) -> tuple[ImportedSpan, ...]:
    """What a host's row keeps of its imports: (component, times) of each, in order, spans that touch made one.

    Beyond IMPORTED_SPANS_MAX the spans with the least time between them become one, and what an agent counts in that time
    is left in a gap as well: nothing is booked twice for want of room.
    """
    by_component: dict[int, list[tuple[int, int]]] = {}
    for component, times in booked:
        by_component.setdefault(component, []).extend(times)
    spans: list[ImportedSpan] = []
    for component, times in sorted(by_component.items()):
        for start, end in sorted(times):
            if spans and spans[-1].component == component and start <= spans[-1].to_seconds:
                start, end = spans[-1].from_seconds, max(end, spans.pop().to_seconds)
            spans.append(ImportedSpan(component, start, end))
    return _bounded(spans)


def _bounded(spans: list[ImportedSpan]) -> tuple[ImportedSpan, ...]:
    excess = len(spans) - IMPORTED_SPANS_MAX
    if excess <= 0:
        return tuple(spans)
    # Five components at most: there is always something to join.
    between = sorted(
        (after.from_seconds - before.to_seconds, place)
        for place, (before, after) in enumerate(pairwise(spans), 1)
        if before.component == after.component
    )
    joined = {place for _, place in between[:excess]}
    kept: list[ImportedSpan] = []
    for place, span in enumerate(spans):
        if place in joined:
            span = ImportedSpan(span.component, kept.pop().from_seconds, span.to_seconds)
        kept.append(span)
    return tuple(kept)
