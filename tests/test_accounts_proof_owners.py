"""Who made a proof, as far as anybody knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts import proof_owners
from gateway.accounts.proof_owners import ProofOwners

USER = "alice"


def foreign(owners: ProofOwners, proof: str, account: str, latest: str = "") -> bool:
    return owners.is_foreign(USER, proof, account, latest)


def test_what_was_seen_being_made_is_foreign_to_all_others() -> None:
    owners = ProofOwners()
    owners.made(USER, ["p"], "one")
    assert not foreign(owners, "p", "one", latest="two")
    assert foreign(owners, "p", "two", latest="two")
    assert ("one",) == owners.makers(USER, "p")


def test_servers_that_seal_alike_all_read_it() -> None:
    owners = ProofOwners()
    owners.made(USER, ["p"], "one")
    owners.made(USER, ["p"], "two")
    assert not foreign(owners, "p", "one")
    assert not foreign(owners, "p", "two")
    assert foreign(owners, "p", "three")


def test_a_proof_without_a_known_maker_may_be_any_accounts() -> None:
    assert not foreign(ProofOwners(), "p", "one")
    assert not foreign(ProofOwners(), "p", "one", latest="one")


def test_after_a_move_what_is_unknown_is_the_earlier_accounts() -> None:
    owners = ProofOwners()
    assert foreign(owners, "p", "two", latest="one")
    assert foreign(owners, "p", "two", latest="two"), "for ever"
    assert not foreign(owners, "p", "one", latest="two"), "and back"


def test_what_an_account_refused_it_is_not_sent_again_but_others_are() -> None:
    owners = ProofOwners()
    owners.refused(USER, ["p"], "one")
    assert foreign(owners, "p", "one", latest="one")
    assert not foreign(owners, "p", "two", latest="one")


def test_a_refusal_blames_what_was_not_seen_being_made() -> None:
    owners = ProofOwners()
    owners.made(USER, ["own"], "one")
    owners.refused(USER, ["own", "p"], "one")
    assert not foreign(owners, "own", "one")
    assert foreign(owners, "p", "one")
    owners.refused(USER, ["own"], "one")
    assert foreign(owners, "own", "one")


def test_who_is_seen_making_it_reads_it_again() -> None:
    owners = ProofOwners()
    owners.refused(USER, ["p"], "one")
    owners.made(USER, ["p"], "one")
    assert not foreign(owners, "p", "one")


def test_a_guess_is_taken_back_by_a_refusal() -> None:
    owners = ProofOwners()
    assert foreign(owners, "p", "two", latest="one")
    owners.refused(USER, ["p"], "one")
    assert foreign(owners, "p", "one")
    assert not foreign(owners, "p", "two", latest="one")


def test_what_is_known_is_a_users_own() -> None:
    owners = ProofOwners()
    owners.made("bob", ["p"], "one")
    assert not foreign(owners, "p", "two")


def test_a_proof_is_named_by_its_end() -> None:
    owners = ProofOwners()
    owners.made(USER, ["head" + "x" * 48], "one")
    assert foreign(owners, "x" * 48, "two")


def test_memory_is_bounded_and_the_longest_unused_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proof_owners, "MAX_PROOFS", 5)
    owners = ProofOwners()
    for n in range(5):
        owners.made(USER, [f"p{n}"], "one")
    assert foreign(owners, "p0", "two")
    owners.made(USER, ["p5"], "one")
    assert foreign(owners, "p6", "two", latest="one")

    assert 5 == len(owners)
    assert ["p0", "p3", "p4", "p5"] == [
        f"p{n}" for n in range(6) if owners.makers(USER, f"p{n}")
    ]


def test_accounts_of_one_proof_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_owners, "MAX_ACCOUNTS", 2)
    owners = ProofOwners()
    for name in ("a", "b", "c"):
        owners.made(USER, ["p"], name)
        owners.refused(USER, ["q"], name)
    assert ("b", "c") == owners.makers(USER, "p")
    assert [False, True, True] == [
        foreign(owners, "q", name) for name in ("a", "b", "c")
    ]


STEPS = st.lists(
    st.tuples(st.sampled_from(["made", "refused"]), st.sampled_from("abc")), max_size=12
)


@given(STEPS)
def test_the_last_word_of_an_account_counts(steps: list[tuple[str, str]]) -> None:
    owners, last = ProofOwners(), dict[str, str]()
    for what, account in steps:
        getattr(owners, what)(USER, ["p"], account)
        last[account] = what
    makers = {name for name, what in last.items() if what == "made"}
    for name in "abcd":
        known = name in makers or not makers and last.get(name) != "refused"
        assert known != foreign(owners, "p", name)


def test_another_process_learns_the_latest_and_keeps_its_own() -> None:
    owners, other = ProofOwners(), ProofOwners()
    for number in range(5):
        owners.made(USER, [f"p{number}"], "one")
    owners.refused(USER, ["p3"], "two")
    other.made(USER, ["p4"], "two")
    assert len(owners.dump(3)) == 3
    other.load(owners.dump(3))

    assert foreign(other, "p3", "two") and not foreign(other, "p3", "one")
    assert not foreign(other, "p4", "two") and foreign(other, "p4", "one")
    assert not foreign(other, "p0", "two")  # too old to be handed over
