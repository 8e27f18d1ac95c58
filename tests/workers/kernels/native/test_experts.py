"""Experts on rows that are sorted by expert: against float64, and the same bits in every company."""

import os
import subprocess
import sys

import numpy as np
import pytest

from shardline_workers.kernels.native_api import Format
from tests.workers.kernels.native import guarded_experts
from tests.workers.kernels.native.expert_layers import (
    Chosen,
    exact_delta,
    make_experts,
    random,
    random_choice,
    run_experts,
)
from tests.workers.kernels.native.programs import Machine, families

PAIRS = [*((kind, kind) for kind in Format), (Format.W4_MIN, Format.W8), (Format.W4, Format.BF16)]
NUM_IDS = 11
HERE = [1, 2, 5, 6, 10]  # ids of this rank's experts


@pytest.mark.parametrize(("kind", "down_kind"), PAIRS)
@pytest.mark.parametrize(("hidden", "width"), [(64, 96), (100, 80), (57, 33)])
def test_a_row_gets_the_weighted_sum_of_what_its_experts_here_make_of_it(
    machine: Machine, kind: Format, down_kind: Format, hidden: int, width: int
) -> None:
    experts = make_experts(machine, HERE, hidden=hidden, width=width, kind=kind, down_kind=down_kind)
    x, chosen = random(37, hidden, seed=500), random_choice(37, 3, NUM_IDS)

    delta = run_experts(machine, x, chosen, experts, num_threads=2)

    exact = exact_delta(machine, x, chosen, experts)
    # Activations that lie on the edge between two int8 or bfloat16 numbers may fall to either side.
    assert np.abs(delta - exact).max() <= 4e-3 * np.abs(exact).max()
    assert np.median(np.abs(delta - exact)) <= 1e-6 * np.abs(exact).max()
    elsewhere = ~np.isin(chosen.ids, HERE).any(axis=1)
    assert elsewhere.any() and (delta[elsewhere] == 0).all()


@pytest.mark.parametrize(("kind", "down_kind"), PAIRS)
def test_a_row_has_the_same_bits_in_every_batch_on_every_thread_and_instruction_set(
    machine: Machine, kind: Format, down_kind: Format
) -> None:
    hidden = 100
    experts = make_experts(machine, HERE, hidden=hidden, width=80, kind=kind, down_kind=down_kind)
    x, chosen = random(70, hidden, seed=500), random_choice(70, 3, NUM_IDS)
    apart = Format.BF16 if Format.BF16 in (kind, down_kind) else kind

    for family in families(machine, apart):
        alone = np.concatenate(
            [run_experts(machine, x[[row]], chosen.of([row]), experts, isa=family[0]) for row in range(len(x))]
        )
        for isa in family:
            for rows in (2, 7, 33, 70) if isa else (7,):
                for num_threads in (1, 2):
                    part = slice(0, rows)
                    delta = run_experts(machine, x[part], chosen.of(part), experts, isa=isa, num_threads=num_threads)
                    assert delta.tobytes() == alone[part].tobytes(), (isa, rows, num_threads)


@pytest.mark.parametrize("kind", [Format.W4, Format.BF16])
def test_experts_of_other_ranks_change_nothing_but_what_they_add(machine: Machine, kind: Format) -> None:
    """Partial sums of two ranks, added, are the whole within the rounding of one addition each."""
    experts = make_experts(machine, HERE, hidden=64, width=48, kind=kind, down_kind=kind)
    x, chosen = random(19, 64, seed=500), random_choice(19, 4, NUM_IDS)

    whole = run_experts(machine, x, chosen, experts)
    parts = [run_experts(machine, x, chosen, part) for part in (experts[:2], experts[2:])]

    assert np.allclose(parts[0] + parts[1], whole, rtol=0, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("kind", [Format.W4_MIN, Format.BF16])
@pytest.mark.parametrize("num_rows", [1, 900])
def test_all_rows_may_take_one_expert(machine: Machine, kind: Format, num_rows: int) -> None:
    experts = make_experts(machine, HERE, hidden=64, width=48, kind=kind, down_kind=kind)
    x = random(num_rows, 64, seed=500)
    chosen = Chosen(np.full((num_rows, 1), 5, dtype=np.int32), np.ones((num_rows, 1), dtype=np.float32))

    for isa in machine.library.available_isas().values():
        few = [
            run_experts(machine, x[start : start + 37], chosen.of(slice(start, start + 37)), experts, isa=isa)
            for start in range(0, num_rows, 37)
        ]

        delta = run_experts(machine, x, chosen, experts, isa=isa, num_threads=2)

        assert delta.tobytes() == np.concatenate(few).tobytes(), isa
    exact = exact_delta(machine, x, chosen, experts)
    assert np.abs(delta - exact).max() <= 4e-3 * np.abs(exact).max()


@pytest.mark.parametrize("kind", [Format.W4_MIN, Format.BF16])
def test_threads_share_a_busy_expert_and_idle_ones_without_a_gap(machine: Machine, kind: Format) -> None:
    experts = make_experts(machine, HERE, hidden=320, width=272, kind=kind, down_kind=kind)
    x, ids = random(400, 320, seed=500), np.full((400, 2), 5, dtype=np.int32)
    ids[::50, 1], ids[1::2, 1] = 1, 0  # eight rows take expert 1 too, and half of the rows one that is elsewhere
    chosen = Chosen(ids, random_choice(400, 2, NUM_IDS).weights)

    one, two = (run_experts(machine, x, chosen, experts, num_threads=count) for count in (1, 2))

    exact = exact_delta(machine, x, chosen, experts)
    assert np.abs(one - exact).max() <= 4e-3 * np.abs(exact).max()
    assert two.tobytes() == one.tobytes()


def test_without_rows_nothing_is_touched(machine: Machine) -> None:
    experts = make_experts(machine, HERE, hidden=64, width=48, kind=Format.W4, down_kind=Format.W4)

    delta = run_experts(machine, random(0, 64), random_choice(1, 2, NUM_IDS).of(slice(0, 0)), experts, num_threads=2)

    assert delta.shape == (0, 64)


def test_a_row_that_takes_an_expert_twice_gets_it_twice(machine: Machine) -> None:
    experts = make_experts(machine, HERE, hidden=64, width=48, kind=Format.W8, down_kind=Format.W8)
    x = random(5, 64, seed=500)
    once = Chosen(np.full((5, 1), 6, dtype=np.int32), np.full((5, 1), 0.75, dtype=np.float32))
    twice = Chosen(np.full((5, 2), 6, dtype=np.int32), np.full((5, 2), 0.375, dtype=np.float32))

    assert np.allclose(run_experts(machine, x, twice, experts), run_experts(machine, x, once, experts), rtol=1e-6)


@pytest.mark.parametrize("kind", list(Format))
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_row_breaks_itself_visibly_and_no_other(machine: Machine, kind: Format, broken: float) -> None:
    experts = make_experts(machine, HERE, hidden=64, width=48, kind=kind, down_kind=kind)
    x, chosen = random(19, 64, seed=500), random_choice(19, 5, NUM_IDS)
    spoilt = x.copy()
    spoilt[4, 40] = broken

    whole, delta = (run_experts(machine, rows, chosen, experts) for rows in (x, spoilt))

    assert np.isin(chosen.ids[4], HERE).any() and not np.isfinite(delta[4]).any()
    assert np.delete(delta, 4, axis=0).tobytes() == np.delete(whole, 4, axis=0).tobytes()


@pytest.mark.parametrize("num_rows", [-1, -(2**31), 8, 2**31 - 1])
def test_a_number_of_rows_that_there_is_no_room_for_is_cut(machine: Machine, num_rows: int) -> None:
    experts = make_experts(machine, HERE, hidden=64, width=48, kind=Format.W4, down_kind=Format.W4)
    x, chosen = random(7, 64, seed=500), random_choice(7, 2, NUM_IDS)
    expected = run_experts(machine, x, chosen, experts)

    delta = run_experts(machine, x, chosen, experts, spare_rows=0, told_rows=num_rows)

    assert np.array_equal(delta, expected if num_rows > 0 else np.full_like(delta, -77))


def computed_under_guard(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", guarded_experts.__name__, *arguments]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.process
@pytest.mark.usefixtures("library")
def test_nothing_beyond_weights_and_panels_is_touched() -> None:
    done = computed_under_guard()

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > len(Format) * len(guarded_experts.ROW_COUNTS)


@pytest.mark.process
@pytest.mark.usefixtures("library")
def test_whoever_touched_more_would_be_seen() -> None:
    done = computed_under_guard("stray")

    assert done.returncode != 0, "a signal, or what a sanitizer makes of it"
    assert not done.stdout and "Traceback" not in done.stderr
