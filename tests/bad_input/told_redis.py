"""A server on a socket file that says of itself what a test wants, and serves nothing."""

import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def told_redis(path: Path, info: Mapping[str, str]) -> Iterator[None]:
    """Answers INFO with these lines, tells no setting, and says OK to everything else."""
    text = "".join(f"{name}:{value}\r\n" for name, value in info.items())

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while words := self.request.recv(65_536):
                self.request.sendall(_answer(words, text).encode())

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _answer(words: bytes, text: str) -> str:
    if b"INFO\r\n" in words:
        return f"${len(text)}\r\n{text}\r\n"
    return "*0\r\n" if b"CONFIG\r\n" in words else "+OK\r\n"
