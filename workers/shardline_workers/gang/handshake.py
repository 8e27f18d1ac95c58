"""How two ends of a connection prove to each other that they know the gang's secret, without showing it.

    leader ── Challenge(nonce) ────────────────────────▶ rank
    leader ◀── Hello(nonce, claims, proof) ───────────── rank      proof = HMAC(secret, "rank" both nonces claims)
    leader ── Welcome(proof, member) ──────────────────▶ rank      proof = HMAC(secret, "leader" …)

Nonces are new for each connection, so nothing that was overheard can be played again. What is said afterwards is
neither encrypted nor proved: a gang's network must be its own, as for NCCL and gloo.
"""

import hmac
import secrets
import socket
from collections.abc import Callable

from google.protobuf.message import DecodeError

from shardline_protos import gang_pb2
from shardline_workers.gang.framed_connection import ConnectionLostError, FramedConnection
from shardline_workers.gang.gang_limits import GangLimits

MAX_HANDSHAKE_BYTES = 4096  # of a frame that comes from whoever found the port
_NONCE_BYTES = 32


class HandshakeError(Exception):
    """The other end did not prove that it belongs to this gang; the text says what was wrong."""


def challenge(
    connection: FramedConnection,
    secret: bytes,
    *,
    member: bytes,
    limits: GangLimits,
    admit: Callable[[gang_pb2.Claims], None],
) -> gang_pb2.Claims:
    """The leader's side: what the other end has proved to be.

    Args:
        connection: nothing was said on it.
        secret: of the gang.
        member: its name, unless it names itself.
        limits: how patient to be, and the other end.
        admit: looks at that before the other end hears that it is welcome; may raise HandshakeError.

    Raises:
        HandshakeError: it does not belong here.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    try:
        connection.send(gang_pb2.Challenge(nonce=nonce).SerializeToString())
        hello = gang_pb2.Hello.FromString(connection.receive(limits.handshake_s))
        if len(hello.nonce) != _NONCE_BYTES or not hmac.compare_digest(
            hello.proof, _proof(secret, b"rank", nonce, hello.nonce, hello.claims)
        ):
            raise HandshakeError("it does not know this gang's secret")
        claims = gang_pb2.Claims.FromString(hello.claims)
        admit(claims)
        proof = _proof(secret, b"leader", nonce, hello.nonce, hello.claims)
        patience = gang_pb2.Patience(
            beat_s=limits.beat_s, silence_s=limits.silence_s, loading_silence_s=limits.loading_silence_s
        )
        welcome = gang_pb2.Welcome(proof=proof, member=claims.member or member, patience=patience)
        connection.send(welcome.SerializeToString())
    except (ConnectionLostError, TimeoutError, DecodeError) as error:
        raise HandshakeError(f"it did not say hello: {error or 'nothing came'}") from error
    return claims


def say_hello(
    connection: FramedConnection, secret: bytes, *, claims: gang_pb2.Claims, limit_s: float
) -> gang_pb2.Welcome:
    """The rank's side: its name in the gang, and how patient to be.

    Args:
        connection: nothing was said on it.
        secret: of the gang.
        claims: what it is.
        limit_s: for each answer.

    Raises:
        HandshakeError: this is not the leader of its gang, or it refused.
    """
    nonce, told = secrets.token_bytes(_NONCE_BYTES), claims.SerializeToString()
    try:
        asked = gang_pb2.Challenge.FromString(connection.receive(limit_s)).nonce
        proof = _proof(secret, b"rank", asked, nonce, told)
        connection.send(gang_pb2.Hello(nonce=nonce, claims=told, proof=proof).SerializeToString())
        welcome = gang_pb2.Welcome.FromString(connection.receive(limit_s))
    except (ConnectionLostError, TimeoutError, DecodeError) as error:
        raise HandshakeError(f"the leader did not welcome this rank: {error or 'nothing came'}") from error
    if not hmac.compare_digest(welcome.proof, _proof(secret, b"leader", asked, nonce, told)):
        raise HandshakeError("whoever answered does not know this gang's secret")
    return welcome


def framed_for_handshake(connection: socket.socket, *, limit_s: float) -> FramedConnection:
    """A connection on which nothing large is accepted yet."""
    return FramedConnection(connection, most_bytes=MAX_HANDSHAKE_BYTES, send_limit_s=limit_s)


def _proof(secret: bytes, side: bytes, asked: bytes, answered: bytes, claims: bytes) -> bytes:
    # Each part with its length before it: no two lists of parts are one row of bytes.
    parts = (side, asked, answered, claims)
    return hmac.digest(secret, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")
