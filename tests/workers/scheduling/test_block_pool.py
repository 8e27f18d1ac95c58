import pytest

from shardline_workers.scheduling.block_pool import BlockPool, OutOfBlocksError


def test_the_block_that_was_free_for_longest_is_taken_first() -> None:
    pool = BlockPool(3)
    taken = [pool.take() for _ in range(3)]

    pool.release(taken[1])
    pool.release(taken[0])

    assert [pool.take(), pool.take()] == [taken[1], taken[0]]


def test_a_shared_block_is_free_after_its_last_release_only() -> None:
    pool = BlockPool(1)
    block = pool.take()
    pool.share(block)

    pool.release(block)
    held_once = pool.is_free(block)
    pool.release(block)

    assert (held_once, pool.is_free(block)) == (False, True)


def test_a_free_block_can_be_shared_again_and_leaves_the_queue() -> None:
    pool = BlockPool(2)
    pool.release(pool.take())

    pool.share(0)

    assert pool.num_free == 1
    assert pool.take() == 1


def test_an_empty_pool_says_so() -> None:
    pool = BlockPool(1)
    pool.take()

    with pytest.raises(OutOfBlocksError, match="all 1 KV blocks are held"):
        pool.take()


def test_a_pool_needs_a_block() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BlockPool(0)


def test_a_block_released_twice_is_caught() -> None:
    pool = BlockPool(1)
    block = pool.take()
    pool.release(block)

    with pytest.raises(AssertionError, match="more often than held"):
        pool.release(block)


@pytest.mark.parametrize("held", [[], [0, 0], [1]])
def test_books_that_differ_from_the_sequences_are_caught(held: list[int]) -> None:
    pool = BlockPool(2)
    pool.take()

    pool.check_integrity([0])
    with pytest.raises(AssertionError):
        pool.check_integrity(held)
