"""What `status --prometheus` prints: Prometheus' text format 0.0.4, for node_exporter's textfiles.

Names and units follow prometheus.io/docs/practices/naming: `_total` counts, `_seconds` are seconds,
and a time is in seconds since the epoch. docs/reference.md lists them: they stay as they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mirage_hooks.boot.generation import Phase
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.plan import Known


@dataclass(frozen=True)
class Fleet:
    """The guests of one repository, and what is known of its last converge and its upstream.

    Times are in seconds since the epoch. What is None is not known, and is left out.
    """

    repository: str
    guests: Mapping[str, Known]
    paused: bool
    behind: int | None
    fetched: float | None
    finished: float | None
    exit_code: int | None


@dataclass(frozen=True)
class _Metric:
    name: str
    kind: str
    meaning: str


@dataclass(frozen=True)
class _Sample:
    metric: _Metric
    value: float
    labels: Mapping[str, str]


_UP = _Metric("guest_up", "gauge", "Whether the guest runs.")
_HEALTHY = _Metric("guest_healthy", "gauge", "Whether the guest runs, and its check has passed.")
_HELD = _Metric("guest_held", "gauge", "Whether the guest is held: stopped by hand.")
_PINNED = _Metric("guest_pinned", "gauge", "Whether the guest is pinned: rolled back by hand.")
_GENERATION = _Metric("guest_generation", "gauge", "Number of the guest's generation.")
_RESTARTS = _Metric("guest_restarts_total", "counter", "Restarts within the guest's generation.")
_STARTED = _Metric("guest_start_time_seconds", "gauge", "When the guest was booted.")
_INFO = _Metric("guest_info", "gauge", "What the guest's generation is, by its labels; always 1.")
_PAUSED = _Metric("paused", "gauge", "Whether pulls deploy nothing until `mirage-hooks resume`.")
_BEHIND = _Metric("commits_behind", "gauge", "Commits of its upstream that the branch lacks.")
_FETCHED = _Metric("fetch_timestamp_seconds", "gauge", "When a fetch last went well.")
_FINISHED = _Metric("deploy_timestamp_seconds", "gauge", "When the last deploy finished.")
_EXIT_CODE = _Metric("deploy_exit_code", "gauge", "Exit code of the last deploy: 0 if all is well.")


def exposition(fleet: Fleet) -> str:
    """Return the metrics of a repository's guests."""
    samples = [*_of_repository(fleet)]
    for name, known in fleet.guests.items():
        labels = {"repository": fleet.repository, "guest": name}
        samples += [_Sample(*pair, labels) for pair in _of_guest(known)]
        samples += _info(known, labels)
    lines = []
    # All samples of a metric have to stand together.
    for metric in dict.fromkeys(sample.metric for sample in samples):
        name = f"mirage_hooks_{metric.name}"
        lines += [f"# HELP {name} {metric.meaning}", f"# TYPE {name} {metric.kind}"]
        lines += [
            f"{name}{{{_labels(sample)}}} {_number(sample.value)}"
            for sample in samples
            if sample.metric is metric
        ]
    return "".join(f"{line}\n" for line in lines)


def _of_repository(fleet: Fleet) -> Iterator[_Sample]:
    values = (
        (_PAUSED, fleet.paused),
        (_BEHIND, fleet.behind),
        (_FETCHED, fleet.fetched),
        (_FINISHED, fleet.finished),
        (_EXIT_CODE, fleet.exit_code),
    )
    for metric, value in values:
        if value is not None:
            yield _Sample(metric, value, {"repository": fleet.repository})


def _of_guest(known: Known) -> Iterator[tuple[_Metric, float]]:
    live, monitor = known.live, known.monitor
    intent = known.intent.kind if known.intent is not None else None
    # One that waits for its restart is looked after, but does not run.
    runs = monitor is not None and monitor.phase == "running"
    yield _UP, runs
    yield _HEALTHY, runs and live is not None and live.phase is Phase.HEALTHY
    yield _HELD, intent == "held"
    yield _PINNED, intent == "pinned"
    if live is None or monitor is None:
        return
    yield _GENERATION, live.number
    yield _RESTARTS, monitor.restarts
    if monitor.started is not None:
        yield _STARTED, monitor.started


def _info(known: Known, labels: Mapping[str, str]) -> Iterator[_Sample]:
    if (live := known.live) is not None:
        what = {
            "target": live.boot.target,
            "image": short(live.boot.image),
            "commit": short(live.provenance.commit),
        }
        yield _Sample(_INFO, 1, {**labels, **what})


def _labels(sample: _Sample) -> str:
    return ",".join(f'{name}="{_quoted(value)}"' for name, value in sample.labels.items())


def _quoted(value: str) -> str:
    # A folder's name may be no UTF-8.
    text = value.encode(errors="backslashreplace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(float(value)) if value % 1 else str(int(value))
