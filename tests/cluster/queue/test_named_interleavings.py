"""Where each interleaving that docs/protocol.md numbers is tested, and which ones wait for what they test."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
ONE_SERVER = "cluster/queue/test_interleavings_of_one_server.py"
FORGETS = "cluster/queue/test_interleavings_when_it_forgets.py"
CONTRACT = "cluster/queue/test_queue_contract_"
REDIS = "cluster/queue/test_redis_request_queue.py"
LEADER = "cluster/replica/test_leader.py"

TESTED = (
    (1, ONE_SERVER, "test_01_a_commit_whose_reply_is_lost_is_resent_and_adds_nothing_twice"),
    (2, ONE_SERVER, "test_02_a_claim_whose_reply_is_lost_brings_the_same_again"),
    (2, ONE_SERVER, "test_02_a_stale_copy_of_an_older_claim_does_nothing"),
    (2, f"{CONTRACT}claim.py", "test_the_same_claim_brings_the_same_requests_and_mail"),
    (3, ONE_SERVER, "test_03_a_zombie_that_commits_after_the_reclaim_is_fenced"),
    (3, FORGETS, "test_03_a_zombie_with_an_equal_epoch_is_fenced_by_its_nonce"),
    (4, ONE_SERVER, "test_04_a_prefill_longer_than_the_lease_keeps_its_request"),
    (4, FORGETS, "test_04_a_prefill_keeps_its_request_though_its_claim_is_forgotten"),
    (5, ONE_SERVER, "test_05_a_leader_that_stops_its_heartbeat_loses_its_requests"),
    (5, LEADER, "test_a_wedged_step_fails_the_replica_and_another_one_takes_over"),
    (6, FORGETS, "test_06_forgotten_commits_come_back_whoever_is_first"),
    (7, FORGETS, "test_07_whatever_is_forgotten_comes_to_the_end_that_was_told"),
    (8, FORGETS, "test_08_the_routers_ids_win_where_the_leader_is_dead"),
    (9, FORGETS, "test_09_who_had_more_than_anybody_left_alive_is_told_of_the_loss"),
    (10, ONE_SERVER, "test_10_a_finish_between_reading_and_listening_is_not_missed"),
    (11, ONE_SERVER, "test_11_a_lost_message_is_made_good_within_the_silence"),
    (11, FORGETS, "test_11_a_message_of_the_old_server_is_not_delivered"),
    (12, ONE_SERVER, "test_12_a_client_of_a_dead_router_has_two_leases_to_come_back"),
    (12, ONE_SERVER, "test_12_another_client_that_leaves_takes_no_lease_from_it"),
    (12, ONE_SERVER, "test_12_who_does_not_come_back_from_a_dead_router_decided_before"),
    (13, ONE_SERVER, "test_13_a_cancel_ends_at_once_though_the_owner_is_dead"),
    (14, ONE_SERVER, "test_14_a_deadline_ends_a_request_with_or_without_an_owner"),
    (14, FORGETS, "test_14_a_deadline_in_a_hold_waits_for_its_end"),
    (14, FORGETS, "test_14_an_expiry_that_was_told_stays_though_the_leader_never_heard"),
    (15, FORGETS, "test_15_fifty_submits_over_four_routers_and_a_rollback_are_one_request"),
    (16, f"{CONTRACT}submit.py", "test_the_same_key_with_another_body_is_a_conflict"),
    (17, ONE_SERVER, "test_17_after_an_outage_the_first_that_reconnects_robs_nobody"),
    (17, f"{CONTRACT}sweep.py", "test_an_outage_gives_graces_one_more_term"),
    (19, ONE_SERVER, "test_19_a_rolling_restart_under_a_long_generation_counts_no_attempt"),
    (20, f"{CONTRACT}claim.py", "test_a_tenant_that_returns_after_idling_has_no_monopoly"),
    (22, f"{CONTRACT}claim.py", "test_three_tenants_share_the_slots_of_one_claim"),
    (23, REDIS, "test_a_full_server_refuses_new_requests_and_finishes_running_ones"),
    (24, f"{CONTRACT}commit.py", "test_a_malformed_entry_changes_nothing_in_the_whole_call"),
    (25, LEADER, "test_a_stop_string_cut_by_a_change_of_leader_gives_the_same_text_and_usage"),
    (26, ONE_SERVER, "test_26_three_sequences_of_different_lengths_are_each_resumed"),
    (29, REDIS, "test_another_replication_id_is_no_other_server"),
    (30, FORGETS, "test_30_a_promoted_server_whose_clock_is_behind_robs_nobody_and_loses_no_mail"),
    (31, ONE_SERVER, "test_31_a_detach_that_was_overtaken_by_the_new_attach_is_ignored"),
    (32, FORGETS, "test_32_nothing_is_held_for_ever_by_a_restore_whose_reply_is_lost"),
)
WAITING = (
    (18, "poison in a batch of 64"),
    (21, "one huge head among small ones"),
    (27, "schema N and N−1 side by side"),
    (28, "a node lost with 100 requests in prefill"),
)


@pytest.mark.parametrize(("number", "file", "name"), TESTED, ids=[f"{number:02}-{name}" for number, _, name in TESTED])
def test_a_numbered_interleaving_has_its_test(number: int, file: str, name: str) -> None:
    source = (TESTS / file).read_text(encoding="utf-8")

    assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{number}: {file} has no {name}"


def test_every_number_of_the_protocol_is_tested_or_waits_by_name() -> None:
    text = (TESTS.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
    section = text.partition("## Interleavings\n")[2].partition("\n## ")[0]
    listed = {int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)}
    waiting = tuple((int(n), name) for n, name in re.findall(r"^- (\d+) \*(.+?)\*", section, re.MULTILINE))

    assert listed == {number for number, _, _ in TESTED}
    assert waiting == WAITING
