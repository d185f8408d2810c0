"""What Prometheus is told: the counts of the process, made into metrics when they are asked for.

Every label has a bounded number of values, all of them words of the contract or of this file, but for the labels of
the API keys, which the operator chose. No ledger, no account and nothing else that a customer named is among them.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.clock import ClockWatch
from app.counts import Distribution, RequestCounts, VerificationCounts
from app.db import Database
from app.ledger.feed import Feed
from app.ledger.submissions import QUEUE_WEIGHT_MAX
from app.ledger.verification.checks import RANGE_CHECKS, WHOLE_CHECKS
from app.ledger.verify import VerificationReport
from app.ledger.writer import LedgerWriter

FAULTS = ("500", "503")


@dataclass(frozen=True, eq=False)
class ServiceCollector(Collector):
    """The metrics of one service."""

    version: str
    requests: RequestCounts
    verifications: VerificationCounts
    writer: LedgerWriter
    feed: Feed
    database: Database
    watch: ClockWatch

    def collect(self) -> Iterator[Metric]:
        yield _labelled(
            GaugeMetricFamily, "tallystick_build_info", "The version of the contract.", "version", {self.version: 1}
        )
        yield from self._tells_the_time()
        yield from self._requests()
        yield from self._writes()
        yield from self._follows()
        yield from self._verifies()
        pools = self.database.connections_in_use()
        yield _labelled(
            GaugeMetricFamily, "tallystick_connections_in_use", "Connections to the database that are in use.", "pool",
            {name: used for name, (used, _) in pools.items()},
        )  # fmt: skip
        yield _labelled(
            GaugeMetricFamily, "tallystick_connections_max", "Connections to the database that there may be.", "pool",
            {name: size for name, (_, size) in pools.items()},
        )  # fmt: skip

    def _tells_the_time(self) -> Iterator[Metric]:
        skew_s = self.watch.skew_s()
        skew = GaugeMetricFamily(
            "tallystick_clock_skew_seconds", "How far the clock of the process is ahead of the database's.", labels=[]
        )
        if skew_s is not None:  # no series before the first check
            skew.add_metric([], skew_s)
        yield skew
        yield GaugeMetricFamily(
            "tallystick_clock_skew_limit_seconds", "How far it may be before writes are rejected.",
            self.watch.skew_max_s,
        )  # fmt: skip

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "tallystick_requests", "Requests answered, by operation of the contract; status 0 is a client that left.",
            labels=["operation", "status"],
        )  # fmt: skip
        refusals = CounterMetricFamily(
            "tallystick_refusals", "Requests refused, by operation and code.", labels=["operation", "code"]
        )
        # There from the start, so that the first fault is a rise: Prometheus sees none in a series that begins with 1.
        by_status = {(operation, status): 0 for operation in ("-", *self.requests.operations) for status in FAULTS}
        for (operation, status, code), count in self.requests.answers.items():
            by_status[operation, str(status)] = by_status.get((operation, str(status)), 0) + count
            if code != "-":
                refusals.add_metric([operation, code], count)
        for labels, count in by_status.items():
            requests.add_metric(labels, count)
        yield requests
        yield refusals
        yield _histograms(
            "tallystick_request_seconds", "Time from the head of a request to its end, by operation.", "operation",
            self.requests.seconds.items(),
        )  # fmt: skip

    def _writes(self) -> Iterator[Metric]:
        counts, waiting = self.writer.counts, self.writer.waiting()
        yield GaugeMetricFamily("tallystick_queue_ledgers", "Ledgers that have a write under way.", len(waiting))
        yield GaugeMetricFamily(
            "tallystick_queue_weight", "What waits for a batch, over all ledgers: about 4 for a post.", sum(waiting)
        )
        yield GaugeMetricFamily(
            "tallystick_queue_weight_heaviest",
            "What waits for the ledger that most waits for.",
            max(waiting, default=0),
        )
        yield GaugeMetricFamily(
            "tallystick_queue_weight_limit", "What may wait for one ledger before more is refused.", QUEUE_WEIGHT_MAX
        )
        yield GaugeMetricFamily(
            "tallystick_batch_oldest_seconds",
            "How long ago the batch under way that has waited longest was taken, or last came to a commit; 0 for none.",
            self.writer.stalled_s,
        )
        yield _labelled(
            CounterMetricFamily, "tallystick_batches", "Batches of the writer, by what became of them.", "outcome",
            counts.outcomes,
        )  # fmt: skip
        yield _histogram("tallystick_batch_submissions", "Writes that a batch carried.", counts.submissions)
        yield _histogram("tallystick_batch_entries", "Entries that a batch wrote.", counts.entries)
        yield _histograms(
            "tallystick_batch_stage_seconds",
            "Time of a batch by stage. A write commits by itself; only behind a lock is its commit apart.",
            "stage", counts.seconds.items(),
        )  # fmt: skip
        yield CounterMetricFamily(
            "tallystick_races_lost", "Batches decided again, since another process was faster.", counts.races_lost
        )
        yield CounterMetricFamily(
            "tallystick_batches_interrupted", "Batches run again after trouble of the database.", counts.interrupted
        )
        yield _labelled(
            CounterMetricFamily, "tallystick_events", "Events recorded by this process, by kind; transaction_expired "
            "are the expiries.", "kind", counts.events,
        )  # fmt: skip

    def _follows(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("tallystick_feed_waiters", "Requests that wait for an event.", self.feed.waiting)
        yield GaugeMetricFamily(
            "tallystick_feed_waiters_max", "Requests that may wait for an event at once.", self.feed.waiters_max
        )
        yield _histogram(
            "tallystick_feed_behind_events", "Events between where listEvents is asked on from and the end of the log.",
            self.feed.counts.behind,
        )  # fmt: skip
        yield _labelled(
            GaugeMetricFamily, "tallystick_feed_consumer_behind_events",
            "How far the consumer of a key is behind, in the ledger where it is farthest, at its last asking.",
            "consumer", self.feed.counts.consumers(),
        )  # fmt: skip

    def _verifies(self) -> Iterator[Metric]:
        counts = self.verifications
        yield CounterMetricFamily("tallystick_verifications", "Runs of verifyLedger.", counts.runs)
        yield CounterMetricFamily(
            "tallystick_verification_events", "Events that verifyLedger looked at.", counts.events
        )
        yield GaugeMetricFamily(
            "tallystick_verification_last_run_timestamp_seconds", "When verifyLedger last ran here; 0 for never.",
            counts.last_run,
        )  # fmt: skip
        zeros = dict.fromkeys(RANGE_CHECKS, 0)
        yield _labelled(
            CounterMetricFamily, "tallystick_verification_checked", "What verifyLedger looked at, by check.", "check",
            zeros | counts.checked,
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "tallystick_verification_offenders", "Offenders that verifyLedger found, by check.",
            "check", zeros | counts.offenders,
        )  # fmt: skip


def make_registry(collector: Collector) -> CollectorRegistry:
    """A registry of its own for each service, with what is known of its process."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


@dataclass(frozen=True, eq=False)
class RunCollector(Collector):
    """What a whole run of scripts/verify found, for the textfile collector of node_exporter."""

    reports: list[VerificationReport]
    ended: float
    seconds: float

    def collect(self) -> Iterator[Metric]:
        offenders = dict.fromkeys(WHOLE_CHECKS, 0)
        for check in (check for report in self.reports for check in report.checks):
            offenders[check.name] = offenders.get(check.name, 0) + check.offenders
        yield GaugeMetricFamily(
            "tallystick_verify_last_run_timestamp_seconds", "When scripts/verify last ran to its end.", self.ended
        )
        yield GaugeMetricFamily("tallystick_verify_duration_seconds", "How long scripts/verify took.", self.seconds)
        yield GaugeMetricFamily("tallystick_verify_ledgers", "Ledgers that it verified.", len(self.reports))
        yield GaugeMetricFamily(
            "tallystick_verify_events", "Events that it verified.", sum(report.to_sequence for report in self.reports)
        )
        yield _labelled(
            GaugeMetricFamily, "tallystick_verify_offenders", "Offenders that it found, by check.", "check", offenders
        )


def _labelled[Family: (CounterMetricFamily, GaugeMetricFamily)](
    family: type[Family], name: str, says: str, label: str, values: dict[str, int]
) -> Family:
    made = family(name, says, labels=[label])
    for value, count in values.items():
        made.add_metric([value], count)
    return made


def _histogram(name: str, says: str, distribution: Distribution) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, says, buckets=_buckets(distribution), sum_value=distribution.total)


def _histograms(
    name: str, says: str, label: str, distributions: Iterable[tuple[str, Distribution]]
) -> HistogramMetricFamily:
    made = HistogramMetricFamily(name, says, labels=[label])
    for value, distribution in distributions:
        made.add_metric([value], _buckets(distribution), distribution.total)
    return made


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    bounds = [*(str(float(bound)) for bound in distribution.bounds), "+Inf"]
    return list(zip(bounds, itertools.accumulate(distribution.counts), strict=True))
