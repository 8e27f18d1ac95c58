"""The commands of a one-machine Ray cluster say what the measurements ask for."""

from dataclasses import replace
from pathlib import Path

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.serve.ray_plan import RayPlan

PLAN = RayPlan(ray_command=("ray",), folder=Path("/tmp/shardline-1000/s-abcdef/r"), gcs_port=4711, client_port=4712)


def test_the_head_computes_nothing_and_keeps_its_state() -> None:
    command, environment = PLAN.head_command(), PLAN.head_environment()

    assert {"--head", "--node-ip-address=127.0.0.2", "--port=4711", "--num-cpus=0", "--num-gpus=0"} <= set(command)
    assert environment["RAY_gcs_storage"] == "rocksdb"
    assert environment["RAY_gcs_storage_path"] == "/tmp/shardline-1000/s-abcdef/r/gcs"


def test_the_node_joins_the_head_from_an_address_of_its_own() -> None:
    command = PLAN.node_command()

    assert {"--address=127.0.0.2:4711", "--node-ip-address=127.0.0.3"} <= set(command)
    assert not any(argument.startswith("--num-cpus") for argument in command)  # Ray counts them
    assert "RAY_gcs_storage" not in PLAN.environment()


def test_every_process_outlives_the_head_and_shows_a_token_that_no_argument_holds(tmp_path: Path) -> None:
    plan = replace(PLAN, folder=Path("/tmp") / "x")
    environment = plan.environment()

    assert environment["RAY_gcs_rpc_server_reconnect_timeout_s"] == "3600"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == "/tmp/x/token"
    assert not any("token" in argument for argument in (*plan.head_command(), *plan.node_command()))


def test_the_token_is_secret_and_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plans = [replace(PLAN, folder=Path(name)) for name in ("a", "b")]
    for plan in plans:
        plan.folder.mkdir()
        plan.write_token()

    tokens = {plan.token_file.read_text() for plan in plans}

    assert len(tokens) == 2
    assert min(len(token) for token in tokens) >= 32
    assert plans[0].token_file.stat().st_mode & 0o777 == 0o600


def test_a_restart_of_the_head_is_not_refused_because_of_the_start_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = replace(PLAN, folder=Path("r"))
    plan.head_folder.mkdir(parents=True)
    (plan.head_folder / "ray_current_cluster").touch()

    plan.forget_last_start()
    plan.forget_last_start()  # also where there is nothing to forget

    assert list(plan.head_folder.iterdir()) == []


def test_the_head_takes_nodes_once_its_own_raylet_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = replace(PLAN, folder=Path("r"))
    sockets = plan.head_folder / "session_2026-11-24_08-17-01_202215_12" / "sockets"
    sockets.mkdir(parents=True)

    before = plan.head_takes_nodes()
    (sockets / "raylet").touch()

    assert not before
    assert plan.head_takes_nodes()


def test_a_folder_in_which_sockets_would_have_no_room_is_refused() -> None:
    longest = "/" + "x" * 40

    RayPlan(ray_command=("ray",), folder=Path(longest), gcs_port=1, client_port=2)
    with pytest.raises(ConfigurationError, match="at most 41"):
        RayPlan(ray_command=("ray",), folder=Path(longest + "x"), gcs_port=1, client_port=2)


def test_the_longest_socket_of_ray_fits_under_the_longest_folder() -> None:
    socket = "h/session_2026-11-24_08-17-01_202215_1234567/sockets/plasma_store"

    assert 41 + 1 + len(socket) <= 107
