"""A small Hugging Face hub on this machine: the two calls by which its library finds and fetches files."""

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = (".gguf", ".safetensors", ".bin")  # what the hub keeps as LFS files


@dataclass
class HubServer:
    """One repository, `org/tiny`, and how the server is to misbehave."""

    files: dict[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main", "v1")
    licence: str = "apache-2.0"
    token: str | None = None  # that is needed; None: anybody may read
    refusal: tuple[int, str] | None = None  # status and X-Error-Code of every answer
    cuts: dict[str, list[int]] = field(default_factory=dict)  # name → bytes after which each next answer breaks off
    resets: bool = False  # a cut is a connection that is reset, not one that is closed
    sent_instead: dict[str, bytes] = field(default_factory=dict)  # name → other bytes than those that are listed
    log: list[str] = field(default_factory=list)  # "METHOD path range", in order
    endpoint: str = ""

    def listing(self) -> dict[str, object]:
        siblings = [_sibling(name, content) for name, content in self.files.items()]
        return {"id": "org/tiny", "sha": self.commit, "siblings": siblings, "cardData": {"license": self.licence}}

    def fetched(self, name: str) -> list[str]:
        """The ranges in which a file was asked for."""
        asked = f"/org/tiny/resolve/{self.commit}/{name} "
        return [line.partition(asked)[2] for line in self.log if asked in line]


def _sibling(name: str, content: bytes) -> dict[str, object]:
    sibling: dict[str, object] = {"rfilename": name, "size": len(content)}
    sibling["blobId"] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    if name.endswith(_LARGE):
        digest = hashlib.sha256(content).hexdigest()
        sibling["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 134}
    return sibling


@contextmanager
def running(server: HubServer) -> Iterator[HubServer]:
    """Serves until the block ends."""

    class Handler(_Handler):
        hub = server

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.endpoint = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, server: HubServer) -> None:
    """Makes this hub that of the library, which reads HF_ENDPOINT once, when it is loaded."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append(f"GET {path} {self.headers.get('Range', '')}")
        if self.hub.refusal is not None:
            status, code = self.hub.refusal
            self._refuse(status, code)
        elif self.hub.token is not None and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._refuse(401, "RepoNotFound")
        elif match := re.fullmatch(r"/api/models/org/tiny/revision/(.+)", path):
            self._list(match[1])
        elif match := re.fullmatch(rf"/org/tiny/resolve/{self.hub.commit}/(.+)", path):
            self._send(match[1])
        else:
            self._refuse(404, "RepoNotFound")

    def _list(self, revision: str) -> None:
        if revision not in (*self.hub.revisions, self.hub.commit):
            self._refuse(404, "RevisionNotFound")
            return
        body = json.dumps(self.hub.listing()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, name: str) -> None:
        content = self.hub.sent_instead.get(name, self.hub.files[name])
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cuts = self.hub.cuts.get(name)
        if cuts:
            self.wfile.write(content[start : start + cuts.pop(0)])
            self.close_connection = True
            if self.hub.resets:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
        else:
            self.wfile.write(content[start:])

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
