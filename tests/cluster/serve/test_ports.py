"""One port for several routers, kept from everybody else, and clear words where it is taken."""

import socket

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.serve.ports import METRICS_FLAGS, check_can_listen, free_port, port_of, reserve_shared_port


def _router(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    return listening


def test_routers_share_the_port_and_the_reservation_takes_no_client_from_them() -> None:
    with reserve_shared_port("127.0.0.1", 0) as reserved, _router(port_of(reserved)) as one, _router(
        port_of(reserved)
    ) as two:  # fmt: skip
        one.setblocking(False)
        two.setblocking(False)

        clients = [socket.create_connection(("127.0.0.1", port_of(reserved)), timeout=5) for _ in range(20)]

        accepted = 0
        for router in (one, two):
            while True:
                try:
                    router.accept()[0].close()
                except BlockingIOError:
                    break
                accepted += 1
        for client in clients:
            client.close()
    assert accepted == 20


def test_a_port_that_is_taken_is_refused_with_the_remedy() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(ConfigurationError, match=rf"port {port} of 127.0.0.1 is taken.*--grpc-port"):
            reserve_shared_port("127.0.0.1", port)


def test_a_port_that_another_program_would_share_is_refused_too() -> None:
    with _router(0) as other, pytest.raises(ConfigurationError, match="is taken"):
        reserve_shared_port("127.0.0.1", other.getsockname()[1])


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--host 192\.0\.2\.77 is no address of this machine"):
        reserve_shared_port("192.0.2.77", 0)


def test_a_free_port_can_be_had() -> None:
    with reserve_shared_port("127.0.0.1", free_port("127.0.0.1")) as reserved:
        assert port_of(reserved) > 0


def test_a_port_for_metrics_that_is_taken_is_told_by_its_own_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigurationError, match="--metrics-port"):
        check_can_listen("127.0.0.1", other.getsockname()[1], METRICS_FLAGS)


def test_a_host_for_metrics_that_is_another_machine_s_is_told_by_its_own_flag() -> None:
    with pytest.raises(ConfigurationError, match=r"--metrics-host 192\.0\.2\.1 is no address of this machine"):
        check_can_listen("192.0.2.1", 0, METRICS_FLAGS)
