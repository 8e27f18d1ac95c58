"""Steps are checked before they are sent; what they look like to the scripts, the shared suite shows."""

import pytest

from shardline_cluster.errors import InvalidCallError
from shardline_cluster.queue.calls import CommitEntry, SequenceCommit
from shardline_cluster.queue.frames import pack_bytes, pack_text, pack_u32
from shardline_cluster.queue.published import Published
from shardline_cluster.queue.record_encoding import pack_finish
from shardline_cluster.queue.records import Grant
from shardline_cluster.queue.step_encoding import check_nonce, pack_entries, read_publications
from tests.cluster.queue.lane_calls import STOP, some

GRANT = Grant(1, b"12345678")


@pytest.mark.parametrize(
    "sent", [SequenceCommit(0, 0, b"123"), SequenceCommit(0, -1, b"1234"), SequenceCommit(-1, 0, b"1234")]
)
def test_what_is_no_run_of_tokens_is_refused(sent: SequenceCommit) -> None:
    with pytest.raises(InvalidCallError, match="are no token ids"):
        pack_entries([CommitEntry("lane-1", GRANT, (sent,))])


def test_a_nonce_has_eight_bytes() -> None:
    assert check_nonce(b"12345678") == b"12345678"
    with pytest.raises(InvalidCallError, match="but this one has 7"):
        check_nonce(b"1234567")


def test_one_message_brings_the_publications_of_many_requests() -> None:
    sequence = (
        pack_u32(1) + pack_u32(2) + pack_bytes(some(2, [9]).ids) + pack_bytes(b"") + pack_bytes(pack_finish(STOP))
    )
    first = pack_text("lane-1") + pack_u32(4) + pack_u32(1) + sequence + pack_bytes(b"")
    second = pack_text("lane-2") + pack_u32(1) + pack_u32(0) + pack_bytes(b"")

    messages = list(read_publications(pack_text("server-1") + pack_u32(2) + first + second))

    assert messages == [
        Published("server-1", "lane-1", 4, (some(2, [9], STOP, 1),), None),
        Published("server-1", "lane-2", 1, (), None),
    ]
