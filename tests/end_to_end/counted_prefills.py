"""An engine that counts, beside its work, the tokens of prompts that were asked for and those that it computed."""

from shardline_workers.engine import Capacity, Engine, EngineDescription, EngineRequest, StepResult


class CountedPrefills:
    """Implements `Engine` over another one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.num_asked = 0  # each of a request's sequences has the whole prompt
        self.num_computed = 0

    @property
    def hit_rate(self) -> float:
        """The share of prompts' tokens whose keys and values were in the cache."""
        return 1 - self.num_computed / self.num_asked

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def capacity(self) -> Capacity:
        return self._engine.capacity()

    def add(self, request: EngineRequest) -> None:
        self.num_asked += len(request.prompt_ids) * len(request.sequences)
        self._engine.add(request)

    def stop_sequence(self, request_id: str, sequence: int) -> None:
        self._engine.stop_sequence(request_id, sequence)

    def cancel(self, request_id: str) -> None:
        self._engine.cancel(request_id)

    def has_work(self) -> bool:
        return self._engine.has_work()

    def expected_step_s(self) -> float:
        return self._engine.expected_step_s()

    def step(self) -> StepResult:
        result = self._engine.step()
        self.num_computed += result.num_prefill_tokens
        return result

    def check_integrity(self) -> None:
        self._engine.check_integrity()

    def close(self) -> None:
        self._engine.close()
