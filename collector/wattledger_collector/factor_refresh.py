"""Asks providers for factors on time and records what is new, each source in a thread of its own.

Decides no figure. Nothing waits for it: booking, metrics and page go on while a provider hangs, and what was missed in an
outage is asked for when the provider is back. Source of truth: `[[factors.source]]` in the configuration; how far a source
has come stands in the ledger.
"""

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from wattledger_collector.config import FactorSource
from wattledger_collector.factor_fetch import Fetch, FetchError, fetch
from wattledger_collector.factor_sources import PROVIDERS
from wattledger_collector.factor_sources.provider import AnswerError, Parsed, Provider, Question
from wattledger_collector.factor_store import FactorOrderError, newest_end, record_factors
from wattledger_collector.records import StoreError
from wattledger_collector.store import SqliteStore

log = logging.getLogger("wattledger.collector")

# What was missed is asked for up to a year back; more is an import's work.
OUTAGE_SECONDS_MAX = 366 * 86_400

# After the first failure a minute, then twice as long each time, up to an hour: a provider that comes back is not run over.
BACKOFF_SECONDS_MIN = 60.0
BACKOFF_SECONDS_MAX = 3_600.0

_HOUR = 3_600
# A thread that hangs in a fetch is left behind; the process can end without it.
_JOIN_SECONDS_MAX = 1.0
# No provider's key or token is longer; a file that is was named by mistake.
_KEY_CHARACTERS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """How a source does. ages: by zone, seconds since the end of its newest factor, or since the start if it has none."""

    source: str
    ages: Mapping[str, float]
    failures: int


class SourceRefresh:
    """One source: `refresh` asks for all its zones once. Reads no clock but the one that is given."""

    def __init__(
        self,
        settings: FactorSource,
        store: SqliteStore,
        *,
        fetch: Fetch,
        started_seconds: float,
        names: Mapping[str, str] | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """names: of zones, for people."""
        self.settings = settings
        self.provider: Provider = PROVIDERS[settings.provider]
        self.failures = 0
        self._store = store
        self._fetch = fetch
        self._names = names or {}
        self._is_stopping = is_stopping
        self._started_seconds = started_seconds
        self._ends: dict[str, int] = {}

    def refresh(self, now_seconds: int) -> int:
        """Ask for what is lacking and what may have been revised; how many rows were recorded.

        A zone that fails does not keep the others from being asked. Raises FetchError, AnswerError, FactorOrderError or
        StoreError, of the first that failed.
        """
        added, first_error = 0, None
        for zone in self.settings.zones:
            try:
                added += self._refresh_zone(zone, now_seconds)
            except (FetchError, AnswerError, FactorOrderError) as error:
                first_error = first_error or error
        if first_error is not None:
            raise first_error
        return added

    def health(self, now_seconds: float) -> SourceHealth:
        """How it does now."""
        zones = self.settings.zones if self.provider.is_hourly else ()
        ages = {zone: max(0.0, now_seconds - self._ends.get(zone, self._started_seconds)) for zone in zones}
        return SourceHealth(self.provider.name, ages, self.failures)

    def _refresh_zone(self, zone: str, now_seconds: int) -> int:
        key, added = self._key(), 0
        for begin, end in self._spans(zone, now_seconds):
            question = Question(
                zone=zone,
                area=self.settings.areas.get(zone, self.provider.areas.get(zone, zone)),
                from_seconds=begin,
                to_seconds=end,
                asked=datetime.fromtimestamp(now_seconds, UTC).date(),
                address=self.settings.address.rstrip("/"),
            )
            for request in self.provider.requests(question, key):
                text = self._fetch(request)
                if self._is_stopping():
                    return added
                parsed = self.provider.parse(text, question)
                added += self._record(zone, text, parsed, now_seconds)
        return added

    def _spans(self, zone: str, now_seconds: int) -> Sequence[tuple[int, int]]:
        """The spans to ask for, oldest first: from the last value or as far back as revisions are looked for."""
        begin = now_seconds - self.settings.history_seconds
        known = newest_end(self._store, zone, self.provider.name)
        if known is not None:
            self._ends[zone] = known
            begin = max(min(begin, known), now_seconds - OUTAGE_SECONDS_MAX)
        begin -= begin % _HOUR
        step = self.provider.span_seconds_max
        return [(since, min(since + step, now_seconds)) for since in range(begin, now_seconds, step)]

    def _record(self, zone: str, text: str, parsed: Parsed, now_seconds: int) -> int:
        for sentence in parsed.missing:
            log.debug("%s", sentence)
        digest = hashlib.sha256(text.encode()).hexdigest()
        name = self._names.get(zone)
        factors = [
            replace(factor, document_sha256=factor.document_sha256 or digest, name=name or factor.name)
            for factor in parsed.factors
        ]
        recorded = record_factors(self._store, factors, now_seconds=now_seconds)
        if factors:
            ends = [factor.valid_to_seconds for factor in factors]
            self._ends[zone] = max(self._ends.get(zone, 0), *ends)
        return len(recorded.added)

    def _key(self) -> str:
        """The key, read each time, so that it can be changed while the collector runs; or the token that it gives."""
        if not self.settings.key_file:
            return ""
        try:
            key = Path(self.settings.key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FetchError(f"cannot read the key in {self.settings.key_file}: {type(error).__name__}") from None
        if not key or len(key) > _KEY_CHARACTERS_MAX or not key.isprintable():
            raise FetchError(f"{self.settings.key_file} is no key: its one line has to be the key that the provider gave")
        if self.provider.login is None or self.provider.token is None:
            return key
        return self.provider.token(self._fetch(self.provider.login(self.settings.address.rstrip("/"), key)))


def delay_seconds(
    every_seconds: float, failures_in_row: int, retry_after_seconds: float, chance: Callable[[], float]
) -> float:
    """How long to wait. chance: in [0, 1); spreads collectors that were started together over the time."""
    if not failures_in_row:
        return every_seconds * (0.95 + 0.1 * chance())
    backoff = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2.0 ** min(failures_in_row - 1, 20))
    # A provider that is asked once a day is tried again sooner, and one asked each minute not more often than that.
    return max(backoff * (0.5 + chance()), retry_after_seconds)


class FactorRefresh:
    """All sources, from `start` to `stop`, and how they do.

    is_asking: whether this collector asks; of several on one ledger one does. on_recorded: called in a source's thread when
    there are new rows; may raise StoreError. fetch: as in factor_fetch.
    """

    def __init__(
        self,
        sources: Sequence[FactorSource],
        store: SqliteStore,
        *,
        names: Mapping[str, str],
        is_asking: Callable[[], bool] = lambda: True,
        on_recorded: Callable[[], object] = lambda: None,
        fetch: Fetch = fetch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stopping = threading.Event()
        self._is_asking = is_asking
        self._on_recorded = on_recorded
        self._clock = clock
        self.sources = [
            SourceRefresh(
                settings, store, fetch=fetch, started_seconds=clock(), names=names, is_stopping=self._stopping.is_set
            )
            for settings in sources
        ]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to ask."""
        for source in self.sources:
            thread = threading.Thread(target=self._run, args=(source,), name=f"factors-{source.provider.name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Ask no more; a fetch under way is left to itself, and its answer to the next start."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS_MAX)

    def health(self) -> list[SourceHealth]:
        """How the sources do; none where another collector asks, so that each zone is shown once."""
        if not self._is_asking():
            return []
        now = self._clock()
        return [source.health(now) for source in self.sources]

    def _run(self, source: SourceRefresh) -> None:
        # Not for secrets: it only spreads questions over time.
        chance = random.Random().random
        failures_in_row = 0
        while not self._stopping.is_set():
            retry_after = 0.0
            if self._is_asking():
                error = self._try(source)
                failures_in_row = failures_in_row + 1 if error is not None else 0
                if isinstance(error, FetchError):
                    retry_after = error.retry_after_seconds
            self._stopping.wait(delay_seconds(source.settings.every_seconds, failures_in_row, retry_after, chance))

    def _try(self, source: SourceRefresh) -> Exception | None:
        try:
            added = source.refresh(int(self._clock()))
            if added:
                log.info("%d factors of %s recorded", added, source.provider.name)
                self._on_recorded()
        except (FetchError, AnswerError, FactorOrderError, StoreError) as error:
            source.failures += 1
            log.warning("factors of %s were not renewed: %s", source.provider.name, error)
            return error
        except Exception as error:
            # A fault of ours must cost one answer, and not all that the source has to say from now on.
            source.failures += 1
            log.exception("factors of %s were not renewed: fault in the collector", source.provider.name)
            return error
        return None
