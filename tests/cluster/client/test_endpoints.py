"""Which router is asked next."""

import threading

import pytest

from shardline.endpoints import FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S, Endpoints
from shardline.errors import InvalidArgumentError


def three_endpoints() -> Endpoints:
    return Endpoints(["a:1", "b:2", "c:3"], draw=lambda: 0.0)


def test_they_are_taken_in_turn() -> None:
    endpoints = three_endpoints()

    assert [endpoints.choose(0.0) for _ in range(4)] == ["a:1", "b:2", "c:3", "a:1"]


def test_clients_begin_at_different_ones() -> None:
    assert Endpoints(["a:1", "b:2"], draw=lambda: 0.1).choose(0.0) == "a:1"
    assert Endpoints(["a:1", "b:2"], draw=lambda: 0.9).choose(0.0) == "b:2"


def test_one_that_failed_is_left_alone_for_a_while() -> None:
    endpoints = three_endpoints()

    endpoints.failed("b:2", 0.0)

    assert [endpoints.choose(0.01) for _ in range(4)] == ["a:1", "c:3", "a:1", "c:3"]
    assert endpoints.wait_s(0.01) == 0.0
    assert "b:2" in [endpoints.choose(LONGEST_BACK_OFF_S) for _ in range(3)]


def test_where_all_failed_the_soonest_is_taken_and_the_wait_is_told() -> None:
    endpoints = three_endpoints()
    for instant, address in enumerate(["b:2", "c:3", "a:1"]):
        endpoints.failed(address, float(instant) / 1000)

    assert endpoints.choose(0.01) == "b:2"
    assert endpoints.wait_s(0.01) == pytest.approx(FIRST_BACK_OFF_S / 2 - 0.01)


def test_back_off_doubles_up_to_a_bound_and_ends_with_an_answer() -> None:
    endpoints = Endpoints("a:1", draw=lambda: 0.99)
    waits = []
    for _ in range(12):
        endpoints.failed("a:1", 0.0)
        waits.append(endpoints.wait_s(0.0))

    assert waits == sorted(waits)
    assert waits[1] == pytest.approx(2 * waits[0])
    assert LONGEST_BACK_OFF_S / 2 < waits[-1] <= LONGEST_BACK_OFF_S

    endpoints.succeeded("a:1")
    assert endpoints.wait_s(0.0) == 0.0
    endpoints.failed("a:1", 0.0)
    assert endpoints.wait_s(0.0) == waits[0]


def test_repeats_count_once() -> None:
    assert Endpoints(["a:1", "b:2", "a:1"]).addresses == ("a:1", "b:2")


@pytest.mark.parametrize("address", ["127.0.0.1:50051", "[::1]:50051", "unix:/run/router.sock", "router.example:1"])
def test_addresses_are_host_and_port_or_a_socket(address: str) -> None:
    assert Endpoints(address).addresses == (address,)


@pytest.mark.parametrize(
    "address", ["", "localhost", "http://localhost:50051", "localhost:0", "localhost:70000", "a b:1", ":1", "unix:"]
)
def test_anything_else_is_refused_with_the_remedy(address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="write host:port"):
        Endpoints(address)


def test_none_at_all_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="at least one router"):
        Endpoints([])


def test_threads_may_share_them() -> None:
    endpoints = three_endpoints()
    chosen: list[str] = []

    def choose_many() -> None:
        chosen.extend(endpoints.choose(0.0) for _ in range(300))

    threads = [threading.Thread(target=choose_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {chosen.count(address) for address in endpoints.addresses} == {400}


def test_routers_reject_a_client_together_until_one_answers_or_is_only_lost() -> None:
    endpoints = Endpoints(["a:1", "b:1"], draw=lambda: 0.0)
    endpoints.failed("a:1", 0.0, rejects=True)
    after_one = endpoints.all_reject
    endpoints.failed("b:1", 0.0, rejects=True)
    after_both = endpoints.all_reject

    endpoints.succeeded("a:1")
    after_an_answer = endpoints.all_reject
    endpoints.failed("a:1", 0.0, rejects=True)
    endpoints.failed("b:1", 0.0)

    assert (after_one, after_both, after_an_answer, endpoints.all_reject) == (False, True, False, False)
