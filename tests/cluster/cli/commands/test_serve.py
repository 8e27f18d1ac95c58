"""The flags of `shardline serve`: what they become, and what is refused before anything is started."""

import argparse
import errno
import io
import os
from pathlib import Path

import pytest

from shardline_cluster.access.api_key import Scope
from shardline_cluster.access.key_secret import digest_of
from shardline_cluster.cli.commands import serve as serve_command
from shardline_cluster.cli.flags.environment import parse_arguments
from shardline_cluster.cli.run_file import RunFile, write_run_file
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.tls_files import TlsFiles
from shardline_cluster.serve.serve_options import LauncherKind, ServeOptions
from shardline_cluster.serve.serving import Announcer
from shardline_cluster.serve.start_times import StartTimes
from tests.certificates import Authority


class _Served:
    """Takes the place of what would start processes."""

    def __init__(self) -> None:
        self.options: ServeOptions | None = None
        self.deployments: list[Deployment] = []

    @property
    def deployment(self) -> Deployment | None:
        return self.deployments[0] if self.deployments else None

    async def __call__(self, options: ServeOptions, deployments: list[Deployment], **_: object) -> None:
        self.options, self.deployments = options, deployments


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> _Served:
    served = _Served()
    monkeypatch.setattr(serve_command, "serve", served)
    return served


def _run(*given: str, environment: dict[str, str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers(dest="command")
    own = serve_command.add_parser(subparsers)
    arguments = parse_arguments(parser, {"serve": own}, ["serve", *given], environment or {})
    return serve_command.run(arguments)


SECRETS = "open-sesame-open-sesame,another-key-another-key"
SIMULATED = ("--engine", "simulated", "--launcher", "local", "--grpc-port", "0")


def test_the_simulated_engine_needs_no_model(served: _Served) -> None:
    code = _run(*SIMULATED)

    assert code == 0
    assert served.options is not None and served.deployment is not None
    assert (served.options.model, served.deployment.name) == ("simulated", "simulated")
    assert served.options.launcher is LauncherKind.LOCAL
    assert served.options.terms == QueueTerms()


def test_flags_become_options(served: _Served) -> None:
    _run(
        *(*SIMULATED, "--replicas", "3", "--routers", "2", "--max-num-seqs", "5", "--max-model-len", "77"),
        *("--served-model-name", "toy", "--durability", "none", "--queue-terms", "short", "--redis-prefix", "p"),
        *("--simulated-tokens", "replay", "--simulated-replay-text", "hey", "--simulated-step-s", "0.5"),
        *("--no-enable-prefix-caching", "--kv-cache-dtype", "int8", "--generation-config", "none"),
    )

    options, deployment = served.options, served.deployment
    assert options is not None and deployment is not None
    assert (options.num_routers, options.durability, options.redis_prefix) == (2, Durability.NONE, "p")
    assert options.terms == QueueTerms.short()
    assert (deployment.name, deployment.num_replicas, deployment.max_model_len) == ("toy", 3, 77)
    engine = deployment.options
    assert (engine.max_num_seqs, engine.simulated_step_s, engine.enable_prefix_caching) == (5, 0.5, False)
    assert (engine.simulated_tokens, engine.simulated_replay_text) == ("replay", "hey")
    assert engine.kv_cache_dtype == "int8"
    assert engine.generation_config == "none"


def test_every_flag_is_also_a_variable(served: _Served) -> None:
    environment = {
        "SHARDLINE_ENGINE": "simulated",
        "SHARDLINE_LAUNCHER": "local",
        "SHARDLINE_GRPC_PORT": "0",
        "SHARDLINE_REDIS_URL": "redis://127.0.0.1:1/0",
    }

    _run(environment=environment)

    assert served.options is not None
    assert served.options.redis_url == "redis://127.0.0.1:1/0"


def test_the_usual_variable_names_redis_where_ours_does_not(served: _Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:2/0")

    _run(*SIMULATED)

    assert served.options is not None
    assert served.options.redis_url == "redis://127.0.0.1:2/0"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--launcher", "local", "--grpc-port", "0"), "no MODEL was given"),
        ((*SIMULATED, "--host", "0.0.0.0"), "--allow-unauthenticated"),
        ((*SIMULATED, "--allow-unauthenticated", "--require-api-key"), "leave one of them out"),
        ((*SIMULATED, "--api-keys-file", "/nowhere/keys"), "/nowhere/keys cannot be read: No such file"),
        ((*SIMULATED, "--api-key", "x" * 16, "--api-key", "x" * 16), "--api-key: a key is named twice"),
        ((*SIMULATED, "--routers", "0"), "--routers is 0"),
        ((*SIMULATED, "--device", "gpu"), "--device is 'gpu', but must be cpu, cuda, or cuda:N"),
        ((*SIMULATED, "--name", "a/b"), "--name is 'a/b'"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_starts(
    given: tuple[str, ...], words: str, served: _Served
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        _run(*given)

    assert served.options is None


@pytest.mark.parametrize("environment", [{}, {"SHARDLINE_API_KEY": "sesame"}])
def test_a_key_that_will_not_do_is_not_repeated(environment: dict[str, str], served: _Served) -> None:
    flag = () if environment else ("--api-key", "sesame")

    with pytest.raises(ConfigurationError, match="has 6 characters, but a key must have 16") as raised:
        _run(*SIMULATED, *flag, environment=environment)

    assert "sesame" not in str(raised.value)
    assert served.options is None


def test_keys_become_digests_that_may_do_everything(served: _Served, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    file.touch(mode=0o600)

    _run(*SIMULATED, "--host", "0.0.0.0", "--api-keys-file", str(file), environment={"SHARDLINE_API_KEY": SECRETS})

    assert served.options is not None
    access = served.options.access
    assert [(key.id, key.digest, key.tenant) for key in access.flag_keys] == [
        (f"flag-{number}", digest_of(secret), "default") for number, secret in enumerate(SECRETS.split(","), 1)
    ]
    assert access.flag_keys[0].scopes == frozenset(Scope)
    assert access.keys_file == str(file)


@pytest.mark.parametrize("given", [("--grpc-port", "70000"), ("--max-num-seqs", "0"), ("--durability", "strict")])
def test_a_value_out_of_bounds_is_a_usage_error(given: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _run(*SIMULATED, *given)

    assert given[0] in capsys.readouterr().err


def test_a_certificate_that_will_not_do_is_refused_before_anything_starts(served: _Served, tmp_path: Path) -> None:
    expired = Authority(tmp_path).pair(expired=True)

    with pytest.raises(ConfigurationError, match="is not valid now: certificate has expired"):
        _run(*SIMULATED, "--tls-cert", str(expired.cert), "--tls-key", str(expired.key))

    assert served.options is None


def test_a_good_certificate_is_told_with_its_names(
    served: _Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = Authority(tmp_path).pair("router.example")

    _run(*SIMULATED, "--tls-cert", str(pair.cert), "--tls-key", str(pair.key))

    assert served.options is not None
    assert served.options.tls == TlsFiles(cert=str(pair.cert), key=str(pair.key))
    assert "TLS with a certificate for router.example until" in capsys.readouterr().out


def test_a_name_that_is_in_use_is_refused_with_the_process(served: _Served) -> None:
    run_file = RunFile(
        name="default", endpoints=(), redis_url="", redis_prefix="p", pid=os.getppid(), started=0.0
    )  # the parent lives
    write_run_file(run_file)

    with pytest.raises(ConfigurationError, match=rf"running already \(process {os.getppid()}\)"):
        _run(*SIMULATED)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((*SIMULATED, "--kv-cache-tokens", "9", "--max-model-len", "10"), "--max-model-len is 10"),
        ((*SIMULATED, "--redis-url", "ftp://host"), "the URL of Redis begins with 'ftp'"),
        (("/nowhere/at/all", "--launcher", "local"), "no such model"),
    ],
)
def test_a_mistake_in_the_flags_is_told_before_another_server_of_the_name(
    given: tuple[str, ...], told: str, served: _Served
) -> None:
    write_run_file(RunFile(name="default", endpoints=(), redis_url="", redis_prefix="p", pid=os.getppid(), started=0.0))

    with pytest.raises(ConfigurationError, match=told):
        _run(*given)


def test_the_run_file_tells_when_routers_serve_and_how_long_all_took_and_is_removed_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str] = []
    file = tmp_path / "run" / "shardline" / "default.json"

    async def announcing(
        _options: object, _deployment: object, *, announcer: Announcer, times: StartTimes, **_: object
    ) -> None:
        announcer.serving("127.0.0.1:9", "unix:///r.sock", local_endpoints=("unix:/r/0.sock",))
        seen.append(file.read_text())
        announcer.ready(times.phases)
        seen.append(file.read_text())

    monkeypatch.setattr(serve_command, "serve", announcing)

    _run(*SIMULATED)

    serving, ready = (from_json(RunFile, text) for text in seen)
    assert (serving.endpoints, serving.ready, serving.start_s) == (("127.0.0.1:9",), None, {})
    assert (serving.local_endpoints, serving.tls) == (("unix:/r/0.sock",), False)
    assert ready.ready is not None
    assert list(ready.start_s) == ["imports", "model", "kernels"]
    assert not file.exists()


def test_a_full_disk_under_the_log_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())

    serve_command.write("ready")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


TWO_MODELS = """\
engine: simulated
launcher: local
grpc-port: 0
max-model-len: 300
models:
  - served-model-name: small
    replicas: 2
  - served-model-name: large
    max-model-len: 900
"""


def test_a_file_may_list_several_models_which_share_what_stands_beside_the_list(served: _Served, file: Path) -> None:
    file.write_text(TWO_MODELS)

    code = _run("--config", str(file), "--max-num-seqs", "5")

    assert code == 0
    told = [(each.name, each.num_replicas, each.max_model_len) for each in served.deployments]
    assert told == [("small", 2, 300), ("large", 1, 900)]
    assert {each.options.max_num_seqs for each in served.deployments} == {5}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("large", "small"), "2 of the `models` are called 'small'"),
        (("    replicas: 2", "    grpc-port: 2"), ":7: grpc-port: `shardline serve` has no such flag inside models"),
        (("    replicas: 2", "    replica: 2"), ":7: replica: .*inside models: did you mean replicas?"),
        (("replicas: 2", "replicas: two"), ":7: replicas: it is 'two'"),
        (("  - served-model-name: small\n    replicas: 2", "  - small"), ":5: models: the value is more than a word"),
        (("max-model-len: 300", "max-model-len: [{a: b}]"), ":4: max-model-len: it takes no list of"),
        (("max-model-len: 300", "served-model-name: x"), "--served-model-name is 'x', but the file lists `models`"),
        (("max-model-len: 300", "model: x"), "MODEL is 'x', but the file lists `models`"),
        (("engine: simulated\n", ""), "no MODEL was given"),
    ],
)
def test_what_is_wrong_with_a_list_of_models_is_told(
    change: tuple[str, str], told: str, served: _Served, file: Path
) -> None:
    file.write_text(TWO_MODELS.replace(*change))

    with pytest.raises(ConfigurationError, match=told):
        _run("--config", str(file))

    assert served.deployments == []
