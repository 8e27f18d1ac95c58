"""What a rank does in a process of its own, once it is ready: frame → step → answer, until the leader says stop."""

from contextlib import suppress

from shardline_workers.gang.answer_encoding import encode_answer
from shardline_workers.gang.step_encoding import decode_frame
from shardline_workers.gang.step_ends import RankEnd
from shardline_workers.gang.step_frames import Answer, ProbedAnswer, ProbeFrame, SampledAnswer, StepFrame, StopFrame
from shardline_workers.gang.step_writer import check_drift
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.ranks.model_runner import ModelRunner, ProbeFailedError

_IDLE_S = 60.0  # between two looks for the next frame; nothing depends on it


def answers(position: RankPosition) -> bool:
    """Whether a rank answers each step: the first of those that share matrices tells what came of it."""
    return position.place == 0


class StepLoop:
    """The loop of one assignment."""

    def __init__(self, end: RankEnd, runner: ModelRunner, position: RankPosition, *, max_threads: int) -> None:
        """Takes all parts.

        Args:
            end: of the step channel.
            runner: the rank's.
            position: of the rank.
            max_threads: of a step here.
        """
        self._end = end
        self._runner = runner
        self._position = position
        self._max_threads = max_threads

    def run(self) -> None:
        """Computes until told to stop.

        Raises:
            CommunicatorError: another rank was lost, or is late.
            StepChannelError: the leader was lost.
            FrameError: the leader says what is no frame.
            StateDriftError: the rank keeps other state than the leader.
        """
        while not isinstance(frame := self._next_frame(), StopFrame):
            answer = self._step(frame) if isinstance(frame, StepFrame) else self._probe(frame)
            if answers(self._position):
                self._end.answer(encode_answer(answer))

    def _next_frame(self) -> StepFrame | ProbeFrame | StopFrame:
        while True:
            with suppress(TimeoutError):
                return decode_frame(self._end.receive(_IDLE_S), group=self._position.group)

    def _step(self, frame: StepFrame) -> Answer:
        if frame.checksum is not None:
            own = self._runner.state_checksum()
            check_drift(own, frame.checksum, rank=self._position.rank, number=frame.number)
        sampled, times = self._runner.execute(frame.plan, num_threads=self._num_threads(frame.num_threads))
        loads = self._runner.expert_loads()
        return SampledAnswer(number=frame.number, sampled=sampled, busy_s=times.busy_s, expert_loads=loads)

    def _probe(self, frame: ProbeFrame) -> Answer:
        try:
            self._runner.probe(frame.num_tokens, num_threads=self._num_threads(frame.num_threads))
        except ProbeFailedError as error:
            return ProbedAnswer(number=frame.number, nonsense=str(error))
        return ProbedAnswer(number=frame.number)

    def _num_threads(self, asked: int) -> int:
        """The leader chooses between one and all; how many all are is each rank's own."""
        return 1 if asked == 1 else self._max_threads
