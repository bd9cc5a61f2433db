"""Every metric of both services, as one typed table; ``metrics`` holds their values.

Names follow Prometheus' conventions: prefix ``signer_flow_``, base units (seconds, bytes), ``_total`` on counters.
Labels are bounded: a closed label knows its values, an open one (key ids, seats, codes) holds at most ``most`` of
them; whatever comes beyond is counted under ``other``. So no caller and no peer can grow our memory by inventing names.
"""

from dataclasses import dataclass
from enum import StrEnum

from common.wire.messages import DeclineReason, Phase, Role

PREFIX = "signer_flow_"
OTHER = "other"

_HTTP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STAGE_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0, 2.0, 5.0)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_ITEM_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class Kind(StrEnum):
    """What a metric does: only grow, move both ways, or collect a distribution."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """A label's name and bound: its ``values`` where they are known, else how many different ones are kept."""

    name: str
    values: frozenset[str] | None = None
    most: int = 64


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One row of the table. ``help`` is for the person who reads a dashboard; ``buckets`` is for histograms only."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


def _closed(name: str, *values: str) -> Label:
    return Label(name, frozenset(values))


_KEY = Label("key_id")
_SEAT = Label("seat", most=256)
_CODE = Label("code")
_CLIENT = Label("client", most=16)
_TOPIC = Label("topic", most=128)
_METHOD = _closed("method", "GET", "HEAD", "POST", "OPTIONS", "WS")  # WS: a message on a WebSocket
_ROUTE = Label("route", most=32)
_STATUS = Label("status")
PHASES = ("idle", *(phase.value for phase in Phase))

SPECS: dict[str, MetricSpec] = {
    spec.name.removeprefix(PREFIX): spec
    for spec in (
        # --- the HTTP edge
        MetricSpec(
            "signer_flow_http_requests_total",
            Kind.COUNTER,
            "HTTP requests by route template, method and status.",
            (_ROUTE, _METHOD, _STATUS),
        ),
        MetricSpec(
            "signer_flow_http_request_duration_seconds",
            Kind.HISTOGRAM,
            "Time from the last byte of a request to the first of its answer, by route template.",
            (_ROUTE,),
            _HTTP_BUCKETS,
        ),
        MetricSpec("signer_flow_pending_items", Kind.GAUGE, "Items that were sent to a signer and have no answer yet."),
        MetricSpec(
            "signer_flow_record_items",
            Kind.HISTOGRAM,
            "Items that one record asked to sign.",
            buckets=_ITEM_BUCKETS,
        ),
        MetricSpec(
            "signer_flow_resends_total",
            Kind.COUNTER,
            "Items sent again to another replica, by reason.",
            (_closed("reason", "suspected", "rebooted", "unread", "mute", "overdue", "refused"),),
        ),
        MetricSpec(
            "signer_flow_answers_total",
            Kind.COUNTER,
            "Answers of signers, by what became of them; all but signed and refused were dropped.",
            (_closed("kind", "signed", "refused", "duplicate", "late", "foreign", "unknown", "invalid"),),
        ),
        MetricSpec(
            "signer_flow_presence_age_seconds",
            Kind.GAUGE,
            "Time since the last beat of a replica or pod.",
            (_closed("role", *(role.value for role in Role)), _SEAT),
        ),
        # --- signing
        MetricSpec(
            "signer_flow_refusals_total",
            Kind.COUNTER,
            "Items that got an error instead of a signature, by code.",
            (_CODE,),
        ),
        MetricSpec(
            "signer_flow_signatures_total", Kind.COUNTER, "Signatures that this replica coordinated, by key.", (_KEY,)
        ),
        MetricSpec(
            "signer_flow_stage_duration_seconds",
            Kind.HISTOGRAM,
            "Time of a record in a stage: waiting in the queue, at the coordinator, until its answers are confirmed.",
            (_closed("stage", "queue", "round", "answer"),),
            _STAGE_BUCKETS,
        ),
        MetricSpec("signer_flow_work_queue_items", Kind.GAUGE, "Items read from Kafka that wait for their round."),
        MetricSpec(
            "signer_flow_nonce_commitments",
            Kind.GAUGE,
            "Unused nonce commitments of a peer that this coordinator holds.",
            (_SEAT,),
        ),
        MetricSpec(
            "signer_flow_shares_total",
            Kind.COUNTER,
            "Signature shares that this participant gave, each for a nonce pair of its own.",
        ),
        MetricSpec(
            "signer_flow_declined_total",
            Kind.COUNTER,
            "Sessions that this participant declined, by reason.",
            (_closed("reason", *(reason.value for reason in DeclineReason)),),
        ),
        MetricSpec("signer_flow_blame_total", Kind.COUNTER, "Faults proven against a seat.", (_SEAT,)),
        # --- keys and ceremonies
        MetricSpec("signer_flow_key_epoch", Kind.GAUGE, "Epoch of a key that this process goes by.", (_KEY,)),
        MetricSpec("signer_flow_quorum_margin_seats", Kind.GAUGE, "Live holders of a key less its threshold.", (_KEY,)),
        MetricSpec(
            "signer_flow_ceremony_phase",
            Kind.GAUGE,
            "1 for the phase that a key's ceremony is in, 0 for the others.",
            (_KEY, _closed("phase", *PHASES)),
        ),
        MetricSpec(
            "signer_flow_ceremony_failures_total",
            Kind.COUNTER,
            "Ceremony attempts that ended without a commit.",
            (_KEY,),
        ),
        MetricSpec(
            "signer_flow_unerased_seats",
            Kind.GAUGE,
            "Most seats that have not said of one earlier epoch that they erased their shares of it.",
            (_KEY,),
        ),
        MetricSpec(
            "signer_flow_alarm",
            Kind.GAUGE,
            "1 while a condition stands that a person must look at.",
            (
                _closed(
                    "alarm",
                    "ceremony_log_lost",
                    "ceremony_log_forked",
                    "roster_conflict",
                    "protocol_version",
                    "waiting_for_quorum",
                    "unerased",
                    "awaits_new_log",
                    "share_ahead",
                    "old_epoch_held",
                    "refresh_overdue",
                    "committee_out_of_reach",
                    "fold_differs",
                ),
            ),
        ),
        # --- Kafka
        MetricSpec(
            "signer_flow_dead_letters_total",
            Kind.COUNTER,
            "Records that could not be taken, by topic and reason.",
            (_TOPIC, Label("reason")),
        ),
        MetricSpec(
            "signer_flow_kafka_delivery_failures_total", Kind.COUNTER, "Records that no broker confirmed.", (_TOPIC,)
        ),
        MetricSpec(
            "signer_flow_answers_undeliverable_total",
            Kind.COUNTER,
            "Answers given up because their record was not confirmed.",
        ),
        MetricSpec("signer_flow_kafka_up", Kind.GAUGE, "1 while a broker answers."),
        MetricSpec(
            "signer_flow_kafka_round_trip_seconds",
            Kind.GAUGE,
            "Time of a request of a Kafka client to its slowest broker and back, in its last report.",
            (_CLIENT, _closed("statistic", "p50", "p99")),
        ),
        MetricSpec(
            "signer_flow_kafka_throttle_seconds",
            Kind.GAUGE,
            "Longest time that a broker made a Kafka client wait by its quotas, in its last report.",
            (_CLIENT,),
        ),
        MetricSpec(
            "signer_flow_kafka_waiting_requests",
            Kind.GAUGE,
            "Requests of a Kafka client that wait to be sent or for their answer.",
            (_CLIENT,),
        ),
        MetricSpec(
            "signer_flow_kafka_queued_records",
            Kind.GAUGE,
            "Records in a Kafka client: not confirmed yet, or fetched and not taken yet.",
            (_CLIENT,),
        ),
        MetricSpec("signer_flow_kafka_queued_bytes", Kind.GAUGE, "Size of the records in a Kafka client.", (_CLIENT,)),
        MetricSpec(
            "signer_flow_kafka_lag_records",
            Kind.GAUGE,
            "Request records that are not finished yet, of the partitions that this replica reads.",
            (_CLIENT,),
        ),
        MetricSpec(
            "signer_flow_kafka_client_events_total",
            Kind.COUNTER,
            "What happened to a Kafka client: connections made and lost, errors, retries, timeouts, rebalances.",
            (
                _CLIENT,
                _closed("event", "connects", "disconnects", "tx_errors", "retries", "timeouts", "rebalances"),
            ),
        ),
        MetricSpec("signer_flow_paused_partitions", Kind.GAUGE, "Partitions not read for now, to let work drain."),
        MetricSpec(
            "signer_flow_clock_skew_seconds", Kind.GAUGE, "Our clock less the broker's, from our own beats; signed."
        ),
        # --- the process
        MetricSpec(
            "signer_flow_event_loop_lag_seconds",
            Kind.HISTOGRAM,
            "How much later than asked the event loop woke its heartbeat.",
            buckets=_LAG_BUCKETS,
        ),
    )
}
