from shardline_workers.engine import Sampling
from shardline_workers.scheduling.request import SequenceKey, SequenceState
from shardline_workers.scheduling.sequence_blocks import SequenceBlocks

BLOCK = 4


def sequence(num_tokens: int, *, salt: str = "", first: int = 0) -> SequenceState:
    return SequenceState(
        key=SequenceKey("r", 0),
        arrival=1,
        sampling=Sampling(),
        num_prompt_tokens=num_tokens,
        token_ids=list(range(first, first + num_tokens)),
        salt=salt,
    )


def computed(blocks: SequenceBlocks, state: SequenceState) -> SequenceState:
    assert blocks.admit(state, 0)
    state.num_computed = len(state.token_ids)
    blocks.publish(state)
    return state


def test_a_sequence_gets_blocks_for_all_of_its_tokens() -> None:
    blocks = SequenceBlocks(num_blocks=4, block_size=BLOCK)
    state = sequence(9)

    assert blocks.admit(state, 1)
    assert (len(state.block_ids), state.num_computed, blocks.num_free) == (3, 0, 1)


def test_headroom_is_left_or_nothing_is_changed() -> None:
    blocks = SequenceBlocks(num_blocks=4, block_size=BLOCK)
    state = sequence(9)

    assert not blocks.admit(state, 2)
    assert (state.block_ids, blocks.num_free) == ([], 4)


def test_a_published_prefix_is_shared_while_it_is_held() -> None:
    blocks = SequenceBlocks(num_blocks=8, block_size=BLOCK)
    first = computed(blocks, sequence(9))
    second = sequence(11)

    assert blocks.admit(second, 0)

    assert second.block_ids[:2] == first.block_ids[:2]
    assert second.num_computed == 2 * BLOCK
    blocks.check_integrity([first, second])


def test_a_freed_prefix_that_is_revived_counts_as_taken() -> None:
    blocks = SequenceBlocks(num_blocks=3, block_size=BLOCK)
    blocks.release(computed(blocks, sequence(9)))

    assert not blocks.admit(sequence(9), 1)
    assert blocks.admit(sequence(9), 0)
    assert blocks.num_free == 0


def test_the_begin_of_a_freed_sequence_is_overwritten_last() -> None:
    blocks = SequenceBlocks(num_blocks=3, block_size=BLOCK)
    blocks.release(computed(blocks, sequence(12)))
    blocks.release(computed(blocks, sequence(8, first=50)))

    again = sequence(12)
    assert blocks.admit(again, 0)

    assert again.num_computed == BLOCK


def test_other_salts_share_nothing() -> None:
    blocks = SequenceBlocks(num_blocks=8, block_size=BLOCK)
    computed(blocks, sequence(9, salt="one"))
    other = sequence(9, salt="two")

    assert blocks.admit(other, 0)

    assert other.num_computed == 0


def test_disowned_blocks_are_not_found_again() -> None:
    blocks = SequenceBlocks(num_blocks=8, block_size=BLOCK)
    blocks.disown(computed(blocks, sequence(9)))
    again = sequence(9)

    assert blocks.admit(again, 0)

    assert again.num_computed == 0
