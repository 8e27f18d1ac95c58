"""Which layers each pipeline stage has: ranges of about equal bytes in the file, embedding and head counted."""

import re
from collections import defaultdict

from shardline_workers.models.checkpoint import Checkpoint
from shardline_workers.parallel.layer_ranges import balanced_ranges

_LAYER = re.compile(r"layers\.(\d+)\.")


def stage_layers(checkpoint: Checkpoint, num_stages: int) -> tuple[range, ...]:
    """The layers of each stage.

    Raises:
        ValueError: there are more stages than layers.
    """
    layer_bytes: dict[int, int] = defaultdict(int)
    single_bytes: dict[str, int] = defaultdict(int)
    for name in checkpoint.source.shapes:
        ours = checkpoint.names.ours(name) or ""
        num_bytes = len(checkpoint.source.stored(name).data)
        if match := _LAYER.match(ours):
            layer_bytes[int(match[1])] += num_bytes
        else:
            single_bytes[ours] += num_bytes
    shape = checkpoint.shape
    return balanced_ranges(
        [layer_bytes[number] for number in range(shape.num_layers)],
        num_stages,
        first_bytes=single_bytes["embedding"],
        last_bytes=single_bytes["embedding" if shape.is_tied else "lm_head"],
    )
