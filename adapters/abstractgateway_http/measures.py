"""What the HTTP side measures: requests by route, refusals by code, and streams."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from abstractgateway.measures import Durations, Family, counter, gauge, labelled

NO_ROUTE = "none"


class _Answers:
    """The answers of one route: how many of each hundred of statuses, and how long they took."""

    __slots__ = ("by_class", "durations")

    def __init__(self) -> None:
        self.by_class = [0] * 6
        self.durations = Durations()


class RequestMeasures:
    """Counts answers; `note` is called once for each, by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, _Answers] = {}
        self._refusals: Counter[str] = Counter()

    def note(self, route: str, status: int, seconds: float, code: str | None) -> None:
        """Count an answer: its route (method and template), its status, how long it took, and its code if refused."""
        with self._lock:
            answers = self._answers.get(route)
            if answers is None:
                answers = self._answers[route] = _Answers()
            answers.by_class[status // 100] += 1
            answers.durations.add(seconds)
            if code is not None:
                self._refusals[code] += 1

    def families(self) -> Iterator[Family]:
        """Return the counts so far."""
        with self._lock:
            answers, refusals = sorted(self._answers.items()), sorted(self._refusals.items())
        by_class = [
            ((("route", route), ("status", f"{hundred}xx")), count)
            for route, found in answers
            for hundred, count in enumerate(found.by_class)
            if count
        ]
        yield Family("abstractgateway_http_requests_total", "counter", "Requests answered.", tuple(by_class))
        by_route = tuple(((("route", route),), found.durations) for route, found in answers)
        about = "Time until an answer was made; those of streams and awaited answers are made before their body is."
        yield Family("abstractgateway_http_request_seconds", "histogram", about, by_route)
        about = "Requests answered with an error, by its code."
        yield labelled("counter", "abstractgateway_http_refusals_total", about, "code", refusals)


def stream_families(*, open_streams: int, evicted: int, refused: int) -> Iterator[Family]:
    """Return the measures of the streams, wherever they are served."""
    about = "Streams and awaited answers that are open."
    yield gauge("abstractgateway_streams_open", about, open_streams)
    about = "Streams cut off because their reader took nothing for too long."
    yield counter("abstractgateway_streams_evicted_total", about, evicted)
    yield counter("abstractgateway_streams_refused_total", "Streams refused because all were taken.", refused)


def lockout_families(locked: int) -> Iterator[Family]:
    """Return the measures of clients that sent wrong tokens."""
    yield gauge("abstractgateway_clients_locked_out", "Clients that have to wait after wrong tokens.", locked)
