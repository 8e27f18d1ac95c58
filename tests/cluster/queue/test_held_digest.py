"""Leader and queue agree about what is held by one short digest."""

import hashlib

from shardline_cluster.queue.held_digest import held_digest
from shardline_cluster.queue.records import Grant


def test_the_digest_is_the_sha1_of_the_sorted_lines() -> None:
    held = [("lane-b", Grant(12, b"\xff" * 8)), ("lane-a", Grant(1, b"\x00\x01" * 4))]

    digest = held_digest(held)

    assert digest == hashlib.sha1(b"lane-a:1:0001000100010001\nlane-b:12:ffffffffffffffff").hexdigest()
    assert digest == held_digest(reversed(held))


def test_nothing_held_is_the_digest_of_nothing() -> None:
    assert held_digest([]) == hashlib.sha1(b"").hexdigest()


def test_another_grant_gives_another_digest() -> None:
    assert held_digest([("a", Grant(1, b"12345678"))]) != held_digest([("a", Grant(2, b"12345678"))])
