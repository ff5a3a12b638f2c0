"""The server: a socket, connections that do not wait for ever, and a quiet end, by uvicorn."""

import logging
import signal
import socket
import threading
import warnings
from typing import Any

from faultlens.deploy.connections import BACKLOG, guarded
from faultlens.deploy.counters import Counters
from faultlens.deploy.limits import Limits
from faultlens.errors import InputError, MissingDependencyError

try:
    import uvicorn
except ImportError as error:
    raise MissingDependencyError("uvicorn", "serve") from error

#: Seconds that requests have to finish when the service is told to stop.
GRACE_S = 30


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that takes connections.

    Args:
        host: Name or address.
        port: 0 for any free one.

    Raises:
        InputError: There is no such host here, or the port is taken or not allowed.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port must be from 0 (any free one) to 65535, got {port}; correct it")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"host must be a name or address of this machine, got '{host}' ({error}); "
            "127.0.0.1 is reached from here only, 0.0.0.0 from everywhere"
        ) from error
    family, kind, protocol, _, address = found[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise InputError(
            f"host and port must be free and yours, got {host}:{port} ({error.strerror}); "
            "choose another --port (0 takes any free one) or --host"
        ) from error
    return opened


def url_of(listening: socket.socket) -> str:
    """Return the address of a socket as people write it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: Any, listening: socket.socket, limits: Limits, counters: Counters) -> None:
    """Serve until told to stop by SIGTERM or SIGINT; requests that have begun are finished.

    Args:
        app: An ASGI application.
        listening: Of `listen`.
        limits: Of connections.
        counters: Count what never reaches the application.

    Raises:
        KeyboardInterrupt: It was SIGINT.
    """
    # What clients do wrong is counted, not logged: a flood of them would fill the disk.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # Python remembers every warning it shows, and Pillow warns of damaged files in their words.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    config = uvicorn.Config(
        app, http=guarded(limits, counters), ws="none", loop="asyncio", lifespan="on",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S, backlog=BACKLOG,
    )  # fmt: skip
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal again at its end; a stop that was asked for is no failure.
        signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
