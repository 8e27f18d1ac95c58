"""What the leader makes of a rank process that does not do its part."""

import socket
from collections.abc import Iterator

import pytest

from shardline_protos import gang_pb2
from shardline_workers.gang.framed_connection import FramedConnection
from shardline_workers.gang.gang_error import GangError
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.rank_member import RankMember


@pytest.fixture
def connection() -> Iterator[FramedConnection]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as opened:
        accepted, _ = server.accept()
        with accepted:
            yield FramedConnection(opened, most_bytes=1024, send_limit_s=1.0)


def test_a_rank_that_opens_no_connection_for_steps_is_named_with_the_limit(connection: FramedConnection) -> None:
    claims = gang_pb2.Claims(host="far", host_identity="far", pid=7)
    member = RankMember(claims, talk=connection, limits=GangLimits(handshake_s=0.01), exit_code=lambda _: None)
    member.rank = 2

    with pytest.raises(GangError) as failure:
        member.take_steps()

    assert str(failure.value) == "rank 2 (process 7 on far) opened no connection for steps within 0.01 s"
