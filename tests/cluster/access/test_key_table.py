"""Who is known, who is known no more, and who never was."""

import pytest

from shardline_cluster.access.key_secret import digest_of
from shardline_cluster.access.key_table import KeySource, KeyTable
from shardline_cluster.errors import UnauthenticatedError
from shardline_cluster.fleet.versioned_records import Versioned
from tests.cluster.access.known_keys import NOW_MS, a_key, a_secret

A, B = a_key("a"), a_key("b")


@pytest.fixture
def table() -> KeyTable:
    return KeyTable()


def test_an_empty_table_knows_nobody_and_has_heard_nothing(table: KeyTable) -> None:
    assert table.find(A.digest, NOW_MS) is None
    assert (table.any_seen, table.store_answered, table.known()) == (False, False, [])


def test_an_empty_store_has_answered_but_there_are_no_keys(table: KeyTable) -> None:
    table.give_records({})

    assert (table.any_seen, table.store_answered) == (False, True)


def test_keys_of_all_sources_are_found_by_their_digests_and_listed_by_ids(table: KeyTable) -> None:
    table.give_records({"b": Versioned(1, B)})
    table.give(KeySource.FLAG, [A])
    table.give(KeySource.FILE, [a_key("c")])

    assert table.find(digest_of(a_secret("b")), NOW_MS) == B
    assert [(known.key.id, known.source) for known in table.known()] == [
        ("a", KeySource.FLAG),
        ("b", KeySource.ADMIN),
        ("c", KeySource.FILE),
    ]


@pytest.mark.parametrize(
    ("source", "told"), [(KeySource.FILE, "was taken out of the keys file"), (KeySource.FLAG, "was taken away")]
)
def test_a_key_that_its_source_no_longer_gives_is_told_from_one_that_never_was(
    table: KeyTable, source: KeySource, told: str
) -> None:
    table.give(source, [A, B])

    table.give(source, [B])

    with pytest.raises(UnauthenticatedError, match=f"the key a {told}: use another one"):
        table.find(A.digest, NOW_MS)
    assert table.find(B.digest, NOW_MS) == B
    assert table.find(digest_of("never was"), NOW_MS) is None


def test_a_revoked_key_is_told_so_and_others_stay(table: KeyTable) -> None:
    table.give_records({"a": Versioned(1, A), "b": Versioned(1, B)})

    table.give_records({"a": Versioned(2, None), "b": Versioned(1, B)})

    with pytest.raises(UnauthenticatedError, match="the key a was revoked"):
        table.find(A.digest, NOW_MS)
    assert [known.key for known in table.known()] == [B]


def test_a_key_that_comes_back_counts_again(table: KeyTable) -> None:
    for keys in ([A], [], [A]):
        table.give(KeySource.FILE, keys)

    assert table.find(A.digest, NOW_MS) == A


def test_another_key_under_the_same_id_ends_the_one_before(table: KeyTable) -> None:
    table.give(KeySource.FILE, [A])
    rotated = a_key("a", digest=digest_of("another secret"))

    table.give(KeySource.FILE, [rotated])

    assert table.find(rotated.digest, NOW_MS) == rotated
    with pytest.raises(UnauthenticatedError):
        table.find(A.digest, NOW_MS)


def test_an_expired_key_tells_since_when(table: KeyTable) -> None:
    table.give(KeySource.FILE, [a_key("a", expires_ms=NOW_MS)])

    assert table.find(A.digest, NOW_MS - 1) is not None
    with pytest.raises(UnauthenticatedError, match="the key a expired at 2027-01-15T08:00:00Z"):
        table.find(A.digest, NOW_MS)


def test_that_there_has_been_a_key_is_not_forgotten(table: KeyTable) -> None:
    table.give(KeySource.FILE, [A])

    table.give(KeySource.FILE, [])

    assert table.any_seen


def test_a_revoked_key_alone_tells_that_there_are_keys(table: KeyTable) -> None:
    table.give_records({"a": Versioned(2, None)})

    assert table.any_seen


def test_a_flag_goes_over_the_file_and_the_file_over_the_store(table: KeyTable) -> None:
    stored, filed, flagged = (a_key("a", tenant=tenant) for tenant in ("s", "f", "g"))
    table.give(KeySource.FLAG, [flagged])
    table.give(KeySource.FILE, [filed])
    table.give_records({"a": Versioned(1, stored)})

    first = table.find(A.digest, NOW_MS)
    table.give(KeySource.FLAG, [])
    second = table.find(A.digest, NOW_MS)

    assert (first, second) == (flagged, filed)
