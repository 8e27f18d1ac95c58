"""Which tokens of a text count."""

from benchmarks.compare.prompt_perplexity import counted_tokens


def test_only_the_second_half_of_every_whole_chunk_counts() -> None:
    counted = list(counted_tokens(range(11), 4))

    assert counted == [((0, 1, 2), 3), ((4, 5, 6), 7)]


def test_every_counted_token_has_its_chunk_before_it() -> None:
    counted = list(counted_tokens(range(16), 8))

    assert [(len(before), target) for before, target in counted] == [
        (5, 5),
        (6, 6),
        (7, 7),
        (5, 13),
        (6, 14),
        (7, 15),
    ]
    assert all(before[-1] == target - 1 for before, target in counted)
