"""The leader's port: who belongs to the gang becomes a member, everyone else is sent away and the gang waits on."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from shardline_protos import gang_pb2
from shardline_workers.gang.framed_connection import ConnectionLostError
from shardline_workers.gang.gang_address import SECRET_VARIABLE, GangAddress
from shardline_workers.gang.gang_error import GangError
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.handshake import HandshakeError, challenge, framed_for_handshake, say_hello
from shardline_workers.gang.leader_connections import LeaderConnections
from shardline_workers.gang.rank_pool import RankPool

LIMITS = GangLimits(join_s=0.5, handshake_s=0.5, beat_s=0.1, silence_s=5.0)


class Told(list[str]):
    """Lines for the user."""

    def wait_for(self, part: str) -> str:
        end = time.monotonic() + 10
        while not (found := [line for line in self if part in line]):
            assert time.monotonic() < end, f"{part!r} is not in {self}"
            time.sleep(0.01)
        return found[0]


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def pool(told: Told) -> Iterator[RankPool]:
    pool = RankPool(limits=LIMITS, report=told.append)
    yield pool
    pool.close()


def test_who_has_the_secret_becomes_a_member(pool: RankPool) -> None:
    connection, patience = LeaderConnections(pool.address, rank=1).open_talk()

    member = pool.members(2)[1]

    assert member.pid == os.getpid()
    assert patience.silence_s == LIMITS.silence_s
    connection.close()


def test_a_wrong_secret_is_refused_on_both_sides(pool: RankPool, told: Told) -> None:
    wrong = GangAddress(host=pool.address.host, port=pool.address.port, secret=secrets.token_bytes(32))

    with pytest.raises(HandshakeError, match="the leader did not welcome this rank"):
        LeaderConnections(wrong, rank=None).open_talk()

    assert "127.0.0.1 connected" in told.wait_for("it does not know this gang's secret")


def test_a_leader_that_does_not_know_the_secret_is_refused() -> None:
    ours, theirs = connected()
    impostor = framed_for_handshake(theirs, limit_s=1.0)
    rank = framed_for_handshake(ours, limit_s=1.0)
    impostor.send(gang_pb2.Challenge(nonce=b"n" * 32).SerializeToString())
    impostor.send(gang_pb2.Welcome(proof=b"p" * 32, member=b"m").SerializeToString())

    with pytest.raises(HandshakeError, match="whoever answered does not know this gang's secret"):
        say_hello(rank, secrets.token_bytes(32), claims=gang_pb2.Claims(), limit_s=1.0)
    rank.close()
    impostor.close()


def test_what_was_overheard_cannot_be_played_again() -> None:
    secret = secrets.token_bytes(32)
    ours, theirs = connected()
    leader, eavesdropper = framed_for_handshake(ours, limit_s=1.0), framed_for_handshake(theirs, limit_s=1.0)
    eavesdropper.send(_hello_of_an_earlier_rank(secret))

    with pytest.raises(HandshakeError, match="it does not know this gang's secret"):
        challenge(leader, secret, member=b"m", limits=LIMITS, admit=lambda _: None)
    leader.close()
    eavesdropper.close()


def _hello_of_an_earlier_rank(secret: bytes) -> bytes:
    """What a rank said to a challenge that was another one."""
    ours, theirs = connected()
    leader, rank = framed_for_handshake(ours, limit_s=1.0), framed_for_handshake(theirs, limit_s=1.0)
    leader.send(gang_pb2.Challenge(nonce=b"n" * 32).SerializeToString())
    leader.send(b"")
    with pytest.raises(HandshakeError):
        say_hello(rank, secret, claims=gang_pb2.Claims(), limit_s=1.0)
    hello = leader.receive(1.0)
    leader.close()
    rank.close()
    return hello


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\4\xff\xff\xff\xff", b"\0\0\0\0", b"\xff" * 100_000, b""],
    ids=["http", "no message", "empty", "much", "silence"],
)
def test_garbage_is_sent_away_and_the_gang_waits_on(pool: RankPool, told: Told, garbage: bytes) -> None:
    stranger = socket.create_connection((pool.address.host, pool.address.port))
    with suppress(OSError):  # sent away before it had said all
        stranger.sendall(garbage)

    told.wait_for("was sent away")
    connection, _ = LeaderConnections(pool.address, rank=1).open_talk()

    assert pool.members(2)[1].pid == os.getpid()
    stranger.close()
    connection.close()


def test_a_rank_that_does_not_come_is_named(pool: RankPool) -> None:
    connection, _ = LeaderConnections(pool.address, rank=2).open_talk()

    with pytest.raises(GangError) as failure:
        pool.members(4)

    assert str(failure.value).startswith(f"ranks 1, 3 of 4 did not connect to {pool.address} within 0.5 s; there are: ")
    assert f"process {os.getpid()} on " in str(failure.value)
    connection.close()


def test_a_steps_connection_of_an_unknown_rank_is_refused(pool: RankPool, told: Told) -> None:
    connections = LeaderConnections(pool.address, rank=None)
    connections._member = b"nobody"

    with pytest.raises(HandshakeError):
        connections.open_steps()

    told.wait_for("its first connection is unknown")


def test_a_leader_that_falls_silent_is_lost(pool: RankPool) -> None:
    connection, _ = LeaderConnections(pool.address, rank=None).open_talk()

    pool.close()

    with pytest.raises(ConnectionLostError):
        while True:
            connection.receive(5.0)
    connection.close()


@pytest.mark.process
class TestTheProgram:
    @pytest.mark.parametrize(
        ("secret", "leader", "says"),
        [
            ("", "127.0.0.1:1", "SHARDLINE_GANG_SECRET must hold 64 hexadecimal digits"),
            ("ab" * 32, "127.0.0.1", "the leader's address is '127.0.0.1'; it must be HOST:PORT"),
            ("ab" * 32, "127.0.0.1:1", "Connection refused"),
        ],
        ids=["no secret", "no port", "nobody there"],
    )
    def test_it_says_why_it_found_no_leader(self, secret: str, leader: str, says: str) -> None:
        environment = {"PYTHONPATH": os.pathsep.join(sys.path), SECRET_VARIABLE: secret}
        command = [sys.executable, "-m", "shardline_workers.gang.rank_process", "--leader", leader]

        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        assert ended.returncode == 2
        assert says in ended.stderr
        assert "ab" * 32 not in ended.stderr

    def test_children_that_cannot_start_are_told_at_once(self, told: Told) -> None:
        pool = RankPool(report=told.append)
        pool.start_children(1, environment={"PYTHONHOME": "/nowhere"})

        with pytest.raises(GangError, match=r"rank 1 of 2 cannot come: process \d+ ended with exit code 1 before"):
            pool.members(2)
        pool.close()
