"""What a replica counts: its engine's steps, what it commits, and how long requests take on their way through it."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.telemetry.instruments import Instruments
from shardline_workers.engine import EngineLoad, ExpertLoads, StepResult

# Bounds of histograms: seconds, but for TOKEN_COUNT_BOUNDS.
STEP_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
COMMIT_BOUNDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TOKEN_COUNT_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
STRETCH_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 240, 480, 960, 1920, 3840)

REPLICA_LABELS = ("model_name", "lane", "replica")


def replica_labels(spec: ReplicaSpec) -> Mapping[str, str]:
    """Labels of everything that a replica tells."""
    return dict(zip(REPLICA_LABELS, (spec.deployment.name, spec.deployment.lane, spec.replica), strict=True))


class ReplicaMetrics:
    """All of them, in one registry. Belongs to the event loop."""

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        """`labels`: the same for all series."""
        self._make = Instruments(registry, labels)
        self._load = EngineLoad()
        self._num_prefix_queries = 0
        self._num_prefix_hits = 0
        self._num_preempted = 0
        self._num_prefilled = 0
        self._num_generated = 0
        self._num_commits = 0
        self._num_committed = 0
        self._expert_imbalance = 0.0
        self._active_s = 0.0
        self._add_engine()
        self._add_steps()
        self._add_queue()
        self._add_requests()

    def _add_engine(self) -> None:
        make = self._make
        make.read_gauge("engine_num_seqs_running", "Sequences in the engine's batch.", lambda: self._load.num_running)
        make.read_gauge("engine_num_seqs_waiting", "Sequences that wait in the engine.", lambda: self._load.num_waiting)
        make.read_gauge("kv_cache_usage_perc", "Used part of the KV cache, 0 to 1.", lambda: self._load.kv_cache_usage)
        make.read_counter(
            "prefix_cache_queries",
            "Tokens of prompts that were looked for in the prefix cache.",
            lambda: self._num_prefix_queries,
        )
        make.read_counter(
            "prefix_cache_hits", "Tokens of prompts that the prefix cache had.", lambda: self._num_prefix_hits
        )
        make.read_counter(
            "num_preemptions",
            "Sequences that the engine sent back to wait, for want of KV blocks.",
            lambda: self._num_preempted,
        )
        self._expert_tokens = make.counter("expert_tokens", "Tokens that took an expert, summed over layers.", "expert")
        make.read_gauge(
            "expert_imbalance",
            "Tokens of the hottest part of the experts over the mean of all parts; 0: no experts, or not known yet.",
            lambda: self._expert_imbalance,
        )
        make.read_counter("prompt_tokens", "Tokens that were prefilled.", lambda: self._num_prefilled)
        make.read_counter("generation_tokens", "Tokens that the engine generated.", lambda: self._num_generated)

    def _add_steps(self) -> None:
        make, own = self._make, self._make.constant
        self._step_s = make.token_histogram(
            "step_duration_seconds", "Time of an engine's step.", bounds=STEP_BOUNDS
        ).series(*own)
        self._step_tokens = make.token_histogram(
            "iteration_tokens_total", "Tokens of a step, prefilled and decoded ones.", bounds=TOKEN_COUNT_BOUNDS
        ).series(*own)
        self._batch = make.token_histogram(
            "batch_size", "Sequences that got a token in a step.", bounds=TOKEN_COUNT_BOUNDS
        ).series(*own)

        make.read_counter(
            "engine_active_seconds", "Time in which the engine had a step under way.", lambda: self._active_s
        )
        self._stage_busy_s = make.counter(
            "stage_busy_seconds", "Of the engine's active time, what a pipeline's stage computed.", "stage"
        )

    def _add_queue(self) -> None:
        make, own = self._make, self._make.constant
        self.claimed = make.counter("claimed_requests", "Requests that this replica was granted.").labels(*own)
        self.redelivered = make.counter(
            "redeliveries", "Requests granted here that had been granted before: handed over, or taken from the dead."
        ).labels(*own)
        self.handed_over = make.counter(
            "handed_over_requests", "Requests that this replica gave back, or lost, before their end."
        ).labels(*own)
        make.read_counter(
            "commits", "Commits with tokens, ends or questions; heartbeats not.", lambda: self._num_commits
        )
        make.read_counter("committed_tokens", "Tokens that the log took.", lambda: self._num_committed)
        self._commit_s = make.token_histogram(
            "commit_latency_seconds", "From a commit to its answer, sending it again included.", bounds=COMMIT_BOUNDS
        ).series(*own)

    def _add_requests(self) -> None:
        make, own = self._make, self._make.constant
        self.finished = make.counter(
            "request_success",
            "Requests that ended here, by reason: stop, length, abort (cancelled), expired, error.",
            "finished_reason",
        )
        self.queue_s = make.histogram(
            "request_queue_time_seconds", "From acceptance to the first claim.", bounds=STRETCH_BOUNDS
        ).labels(*own)
        self.prefill_s = make.histogram(
            "request_prefill_time_seconds", "From a claim to the first token after it.", bounds=STRETCH_BOUNDS
        ).labels(*own)
        self.decode_s = make.histogram(
            "request_decode_time_seconds",
            "From a claim's first token to the end, or to a hand-over.",
            bounds=STRETCH_BOUNDS,
        ).labels(*own)

    def stepped(self, result: StepResult, took_s: float) -> None:
        """The engine made a step."""
        self._step_s.observe(took_s)
        self._step_tokens.observe(result.num_prefill_tokens + result.num_decode_tokens)
        self._batch.observe(len(result.sequences))
        self._num_prefilled += result.num_prefill_tokens
        self._num_generated += sum([len(sequence.token_ids) for sequence in result.sequences])
        self._num_preempted += result.num_preempted
        self._num_prefix_queries += result.num_prefix_queries
        self._num_prefix_hits += result.num_prefix_hits
        self._load = result.load
        self._active_s += result.active_s
        for times in result.stage_times:
            self._stage_busy_s.labels(*self._make.constant, str(times.stage)).inc(times.busy_s)
        if result.expert_loads is not None:
            self._experts_took(result.expert_loads)

    def _experts_took(self, loads: ExpertLoads) -> None:
        self._expert_imbalance = loads.imbalance
        for expert, num_tokens in enumerate(loads.by_expert):
            self._expert_tokens.labels(*self._make.constant, str(expert)).inc(num_tokens)

    def engine_holds(self, load: EngineLoad) -> None:
        """What is in the engine now."""
        self._load = load

    def committed(self, num_tokens: int, took_s: float) -> None:
        """A commit with entries was answered."""
        self._num_commits += 1
        self._num_committed += num_tokens
        self._commit_s.observe(took_s)

    def ended(self, reason: str) -> None:
        """A request ended here."""
        self.finished.labels(*self._make.constant, reason).inc()
