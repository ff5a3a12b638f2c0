"""Connections that do not wait for ever, on top of uvicorn's plain protocol.

uvicorn limits neither how long a connection may take over the head of a request nor how many are
open.
"""

import asyncio
import json
import resource
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import ClassVar

from faultlens.deploy.counters import Counters
from faultlens.deploy.limits import Limits
from faultlens.errors import MissingDependencyError

try:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingDependencyError("uvicorn", "serve") from error

#: The kernel may hand over so many connections before one can be closed.
BACKLOG = 512
# Files that are open anyway, such as the model's.
_OTHER_FILES = 64


@dataclass(frozen=True, slots=True)
class Room:
    """What all connections of a server share.

    Attributes:
        limits: Of each.
        counters: Count what never reaches the application.
        most: That may be open.
        waiting: Those that wait for a request, in the order in which they began to.
    """

    limits: Limits
    counters: Counters
    most: int
    waiting: dict["Guarded", None] = field(default_factory=dict)


class Guarded(H11Protocol):
    """One connection. It waits while no request of it is being answered."""

    room: ClassVar[Room]
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait, and make room for others."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.room.most:
            next(iter(self.room.waiting)).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Wait no more once a request is whole."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the service's own words."""
        self._refuse(400, "request must be HTTP/1.1, got something else; correct it")

    def drop(self) -> None:
        """Close the connection at once."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self) -> None:
        self._stop_waiting()
        self.room.waiting[self] = None
        self._timer = self.loop.call_later(self.room.limits.timeout_s, self._expire)

    def _stop_waiting(self) -> None:
        self.room.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        has_begun = bool(self.conn.trailing_data[0])
        if has_begun and self.conn.our_state is h11.IDLE and not self.transport.is_closing():
            told = f"head of a request must arrive within {self.room.limits.timeout_s:g} seconds"
            self._refuse(408, f"{told}, got a part of it; send it again")
        self.drop_softly()

    def drop_softly(self) -> None:
        """Close the connection after what is being sent."""
        self._stop_waiting()
        self.transport.close()

    def _refuse(self, status: int, told: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.drop_softly()  # the answer has already begun
            return
        self.room.counters.answered("other", status, 0.0)
        body = json.dumps({"error": told}).encode()
        headers = [
            ("content-type", "application/json"), ("content-length", str(len(body))),
            ("connection", "close"),
        ]  # fmt: skip
        events = (
            h11.Response(
                status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode()
            ),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def guarded(limits: Limits, counters: Counters) -> type[Guarded]:
    """Return uvicorn's protocol with limits on waiting connections, for one server."""
    room = Room(limits, counters, _n_connections(limits))
    return type("GuardedInRoom", (Guarded,), {"room": room})


def _n_connections(limits: Limits) -> int:
    """Return how many connections may be open, after asking the system for so many files."""
    wanted = limits.max_connections + BACKLOG + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(limits.max_connections, soft - BACKLOG - _OTHER_FILES))
