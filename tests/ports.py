"""A port for processes that find each other: no other test takes it before they do."""

import os
import socket
from itertools import count

# Below those that the system gives out; each worker of pytest has its own.
FIRST, EACH, WORKERS = 10_000, 2_000, 10
_numbers = count()


def free_port() -> int:
    """Return a port that nobody has, another one each time."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    while True:
        port = FIRST + EACH * worker + (os.getpid() + next(_numbers)) % EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
