"""What was read and what is remembered become one: the higher revision wins, and the store is told what it lacks."""

from shardline_cluster.fleet.remembered_records import TOMBSTONE_KEPT_MS, RememberedRecords
from shardline_cluster.fleet.versioned_records import Versioned, next_revision

NOW_MS = 1_800_000_000_000


def test_what_a_store_says_is_learned_and_it_lacks_nothing() -> None:
    remembered = RememberedRecords[str]()

    lacking = remembered.merge({"a": Versioned(1, "x"), "b": Versioned(NOW_MS, None)}, now_ms=NOW_MS)

    assert lacking == {}
    assert remembered.values == {"a": "x"}
    assert remembered.records == {"a": Versioned(1, "x"), "b": Versioned(NOW_MS, None)}


def test_a_store_that_forgot_everything_is_told_everything() -> None:
    remembered = RememberedRecords[str]()
    stored = {"a": Versioned(1, "x"), "b": Versioned(NOW_MS, None)}
    remembered.merge(stored, now_ms=NOW_MS)

    lacking = remembered.merge({}, now_ms=NOW_MS)

    assert lacking == stored
    assert remembered.values == {"a": "x"}


def test_a_store_that_went_back_gets_the_newer_revision() -> None:
    remembered = RememberedRecords[str]()
    remembered.merge({"a": Versioned(2, "new"), "b": Versioned(NOW_MS, None)}, now_ms=NOW_MS)

    lacking = remembered.merge({"a": Versioned(1, "old"), "b": Versioned(1, "was")}, now_ms=NOW_MS)

    assert lacking == {"a": Versioned(2, "new"), "b": Versioned(NOW_MS, None)}
    assert remembered.values == {"a": "new"}


def test_of_equal_revisions_the_one_in_the_store_counts_for_everybody() -> None:
    remembered = RememberedRecords[str]()
    remembered.learn("a", Versioned(1, "mine"))

    lacking = remembered.merge({"a": Versioned(1, "theirs")}, now_ms=NOW_MS)

    assert lacking == {}
    assert remembered.values == {"a": "theirs"}


def test_an_old_tombstone_is_neither_kept_nor_put_back() -> None:
    remembered = RememberedRecords[str]()
    remembered.merge({"a": Versioned(NOW_MS, None)}, now_ms=NOW_MS)

    kept = remembered.merge({}, now_ms=NOW_MS + TOMBSTONE_KEPT_MS)
    dropped = remembered.merge({}, now_ms=NOW_MS + TOMBSTONE_KEPT_MS + 1)

    assert set(kept) == {"a"}
    assert dropped == {}
    assert remembered.records == {}


def test_a_revision_is_the_present_but_always_above_the_one_before() -> None:
    assert next_revision(0, NOW_MS) == NOW_MS
    assert next_revision(NOW_MS + 5, NOW_MS) == NOW_MS + 6
