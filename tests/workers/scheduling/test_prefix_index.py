import pytest

from shardline_workers.scheduling.prefix_index import PrefixIndex, block_hash, root_hash


def test_a_hash_depends_on_all_tokens_before_it_and_on_the_salt() -> None:
    here = block_hash(block_hash(root_hash(""), [1, 2]), [3, 4])

    other_tokens = block_hash(block_hash(root_hash(""), [1, 9]), [3, 4])
    other_salt = block_hash(block_hash(root_hash("tenant"), [1, 2]), [3, 4])

    assert len({here, other_tokens, other_salt}) == 3


def test_hashes_are_the_same_in_every_process() -> None:
    assert block_hash(root_hash("salt"), [1, 2, 49151]).hex() == "577eb602a0199622b982ad0d081421a4"


def test_the_longest_run_of_known_hashes_is_found() -> None:
    index = PrefixIndex()
    digests = [bytes([number]) for number in range(4)]
    for block, digest in enumerate(digests[:2] + digests[3:]):
        index.publish(digest, block)

    assert index.find(digests) == [0, 1]


def test_a_second_copy_of_a_prefix_does_not_displace_the_first() -> None:
    index = PrefixIndex()
    index.publish(b"a", 1)
    index.publish(b"a", 2)

    index.forget(2)

    assert index.find([b"a"]) == [1]


def test_a_forgotten_block_is_not_found() -> None:
    index = PrefixIndex()
    index.publish(b"a", 1)

    index.forget(1)

    assert index.find([b"a"]) == []


def test_a_block_with_a_new_content_loses_the_old_one() -> None:
    index = PrefixIndex()
    index.publish(b"a", 1)
    index.publish(b"b", 1)

    index.check_integrity()

    assert (index.find([b"a"]), index.find([b"b"])) == ([], [1])


def test_directions_that_differ_are_caught() -> None:
    index = PrefixIndex()
    index.publish(b"a", 1)
    index._block_to_hash.clear()

    with pytest.raises(AssertionError, match="directions"):
        index.check_integrity()
