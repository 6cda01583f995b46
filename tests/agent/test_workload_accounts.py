"""The accounts: who has one, that none falls, and what is repeated until it is acknowledged."""

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from wattledger_agent.readings import Component, IdlePolicy, Method, Workload, WorkloadKind
from wattledger_agent.workload_accounts import ACCOUNT_BYTES_MAX, Accounts, largest
from wattledger_protos.v1 import telemetry_pb2 as pb

FLOW = (Component.CPU, Method.COUNTER)
POD = WorkloadKind.KUBERNETES_POD


def accounts(accounts_max: int = 2, policy: IdlePolicy = IdlePolicy.NODE_ONLY) -> Accounts:
    """No workload has an account yet."""
    return Accounts(policy, accounts_max)


def there(*numbers: int) -> dict[int, Workload]:
    """Pods whose uid is their number."""
    return {number: Workload(POD, str(number)) for number in numbers}


def live(these: Accounts, energies: Mapping[int, int]) -> None:
    """One row in which these workloads are there and use this energy."""
    these.present(there(*energies))
    these.book(FLOW, energies, 0, 0)


def by_name(these: Accounts) -> dict[tuple[str, str, bool], int]:
    """Energy by kind, id and whether frozen."""
    return {
        (account.workload.kind.name, account.workload.id, account.frozen): account.energies.get(FLOW, 0)
        for account in these.all()
    }


def ids(messages: list[pb.WorkloadAccount]) -> set[str]:
    """The ids in messages."""
    return {message.id for message in messages}


def test_workloads_beyond_the_largest_share_one_account() -> None:
    """There is room for two; the third's energy is with the others'."""
    these = accounts()
    live(these, {1: 10, 2: 20, 3: 30})
    assert by_name(these) == {
        ("KUBERNETES_POD", "1", False): 10,
        ("KUBERNETES_POD", "2", False): 20,
        ("OTHER", "", False): 30,
    }


def test_a_larger_workload_takes_the_least_ones_place() -> None:
    """Its account begins at 0 when it is admitted; the evicted one stands still, and goes on among the others."""
    these = accounts()
    live(these, {1: 10, 2: 20, 3: 30})
    these.review()
    live(these, {1: 5, 2: 5, 3: 7})
    assert by_name(these) == {
        ("KUBERNETES_POD", "1", True): 10,
        ("KUBERNETES_POD", "2", False): 25,
        ("KUBERNETES_POD", "3", False): 7,
        ("OTHER", "", False): 35,
    }


def test_two_that_are_near_each_other_do_not_take_turns() -> None:
    """One must have half as much again."""
    these = accounts(1)
    live(these, {1: 100, 2: 150})
    these.review()
    assert ("KUBERNETES_POD", "1", False) in by_name(these)
    live(these, {1: 100, 2: 190})
    these.review()
    assert ("KUBERNETES_POD", "2", False) in by_name(these)


def test_a_workload_admitted_again_has_a_new_account() -> None:
    """Numbers are never used twice."""
    these = accounts(1)
    live(these, {1: 100, 2: 200})
    these.review()
    these.messages()
    these.spooled(1)
    these.acknowledged(1)
    live(these, {1: 900, 2: 1})
    these.review()
    live(these, {1: 5, 2: 1})
    own = {account.workload.id: account for account in these.all() if account.workload.kind is POD}
    assert (own["1"].energies, own["2"].frozen) == ({FLOW: 5}, True)
    # 1 was the first account, then came that of the others, that of 2, and now this one.
    assert own["1"].number == 4


def test_a_workload_that_is_started_anew_goes_on_in_its_account() -> None:
    """A unit's group is made anew with another number; for people it is the same unit."""
    these = accounts()
    live(these, {1: 10})
    these.present({7: Workload(POD, "1")})
    these.book(FLOW, {7: 5}, 0, 0)
    assert by_name(these) == {("KUBERNETES_POD", "1", False): 15}


def test_a_workload_that_is_gone_is_frozen_after_a_whole_pace() -> None:
    """At the first review it has only just gone."""
    these = accounts()
    live(these, {1: 10})
    these.present({})
    these.review()
    assert by_name(these) == {("KUBERNETES_POD", "1", False): 10}
    these.review()
    assert by_name(these) == {("KUBERNETES_POD", "1", True): 10}


def test_energy_of_a_workload_that_is_gone_is_nobodys() -> None:
    """Its last seconds can't be told from the kernel's."""
    these = accounts()
    live(these, {1: 10})
    these.present({})
    these.book(FLOW, {1: 3}, 0, 0)
    assert by_name(these) == {("KUBERNETES_POD", "1", False): 10, ("UNATTRIBUTED", "", False): 3}


def test_a_frozen_account_is_repeated_until_its_first_record_is_acknowledged() -> None:
    """Then it is forgotten."""
    these = accounts(1)
    live(these, {1: 10})
    these.present({})
    these.review()
    these.review()
    for sequence in (5, 6):
        assert ids(these.messages()) == {"1"}
        these.spooled(sequence)
        these.acknowledged(4)
    these.acknowledged(5)
    assert these.messages() == []
    assert these.all() == []


def test_a_record_that_was_not_spooled_acknowledges_nothing() -> None:
    """An acknowledgement of earlier records says nothing of an account that no durable record holds."""
    these = accounts()
    live(these, {1: 10, 2: 10})
    these.present(there(2))
    these.review()
    these.review()
    these.messages()
    these.spooled(9)
    these.present({})
    these.review()
    these.review()
    these.messages()
    these.acknowledged(9)
    assert ids(these.messages()) == {"2"}


def test_what_a_dropped_record_told_is_told_again() -> None:
    """A full disk gave up records unsent: an acknowledgement of later ones says nothing of what was in them."""
    these = accounts()
    live(these, {1: 10, 2: 20})
    these.messages()
    these.spooled(1)
    these.present(there(2))
    these.review()
    these.review()
    assert ids(these.messages()) == {"1"}
    these.spooled(2)
    these.acknowledged(9, dropped_records=2)
    assert ids(these.messages()) == {"1", "2"}
    these.spooled(10)
    these.acknowledged(10, dropped_records=2)
    assert these.messages() == []


def test_what_a_restored_collector_may_lack_is_told_again() -> None:
    """One that acknowledges less than before was put back to an older copy, and records may be gone since."""
    these = accounts()
    live(these, {1: 10, 2: 20})
    these.messages()
    these.spooled(1)
    these.acknowledged(1)
    assert these.messages() == []
    these.acknowledged(0)
    assert ids(these.messages()) == {"1", "2"}


def test_nobody_is_admitted_while_too_many_wait() -> None:
    """Without a collector frozen accounts gather; from as many as may be live on, new workloads are among the others."""
    these = accounts(2)
    for number in range(1, 11):
        live(these, {number: 10})
        these.review()
        these.review()
    assert len(these.all()) <= 2 * 2 + 1
    assert by_name(these)["OTHER", "", False] > 0
    these.messages()
    these.spooled(1)
    these.acknowledged(1)
    live(these, {99: 10})
    assert ("KUBERNETES_POD", "99", False) in by_name(these)


def test_only_what_has_changed_is_told() -> None:
    """An account that stands still costs no bytes."""
    these = accounts()
    live(these, {1: 10, 2: 20})
    assert ids(these.messages()) == {"1", "2"}
    these.book(FLOW, {1: 10}, 0, 0)
    assert ids(these.messages()) == {"1"}


def test_what_has_no_room_in_a_record_goes_with_the_next() -> None:
    """Frozen accounts that nobody has come first."""
    these = accounts(400)
    these.present({number: Workload(POD, f"{number:0250}", "n" * 200, "p" * 250) for number in range(400)})
    these.book(FLOW, dict.fromkeys(range(400), 1), 0, 0)
    first = these.messages()
    assert sum(message.ByteSize() for message in first) <= ACCOUNT_BYTES_MAX
    told = ids(first)
    for _ in range(10):
        told |= ids(these.messages())
    assert len(told) == 400


def test_another_policy_begins_other_accounts() -> None:
    """A figure has one policy; the old accounts stand still and are still delivered."""
    these = accounts()
    live(these, {1: 10})
    these.book(FLOW, {}, 7, 0)
    changed = Accounts(IdlePolicy.EQUAL, 2, these.save())
    assert all(account.frozen and account.policy is IdlePolicy.NODE_ONLY for account in changed.all())
    live(changed, {1: 4})
    (new,) = [account for account in changed.all() if not account.frozen]
    assert (new.policy, new.energies, new.number) == (IdlePolicy.EQUAL, {FLOW: 4}, 3)


def test_a_lowered_number_of_accounts_freezes_the_least() -> None:
    """At the next review."""
    these = accounts(3)
    live(these, {1: 30, 2: 10, 3: 20})
    fewer = Accounts(IdlePolicy.NODE_ONLY, 1, these.save())
    live(fewer, {1: 3, 2: 1, 3: 2})
    fewer.review()
    assert {account.workload.id for account in fewer.all() if not account.frozen} == {"1"}


def test_names_are_as_the_wire_takes_them() -> None:
    """No control characters, and no longer than the collector allows."""
    these = accounts()
    these.present({1: Workload(POD, "a\nb" + "x" * 400)})
    these.book(FLOW, {1: 1}, 0, 0)
    (message,) = these.messages()
    assert message.id == ("ab" + "x" * 400)[:256]


def test_a_name_that_is_learned_later_is_told() -> None:
    """The kubelet answers after the pod's first second."""
    these = accounts()
    live(these, {1: 1})
    these.messages()
    these.present({1: Workload(POD, "1", "ml", "train-0")})
    (message,) = these.messages()
    assert (message.namespace, message.name) == ("ml", "train-0")


def test_the_largest_are_shown_first() -> None:
    """Without the accounts that are no workload's."""
    these = accounts(5)
    live(these, {1: 10, 2: 30, 3: 20})
    these.book(FLOW, {}, 1000, 1000)
    assert [account.workload.id for account in largest(these.all(), 2)] == ["2", "3"]


STEPS = st.lists(
    st.one_of(
        st.dictionaries(st.integers(1, 8), st.integers(0, 1000), max_size=8),
        st.sampled_from(["review", "restart", "send", "acknowledge"]),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(steps=STEPS, accounts_max=st.integers(0, 3))
def test_every_joule_is_in_one_account_and_none_falls(steps: list[dict[int, int] | str], accounts_max: int) -> None:
    """Whoever comes, goes, is evicted or forgotten; and a restart goes on exactly."""
    these = accounts(accounts_max)
    booked = sequence = 0
    told: dict[int, pb.WorkloadAccount] = {}
    for step in [*steps, "send"]:
        if isinstance(step, dict):
            live(these, step)
            booked += sum(step.values())
        elif step == "review":
            these.review()
        elif step == "restart":
            these = Accounts(IdlePolicy.NODE_ONLY, accounts_max, these.save())
        elif step == "acknowledge":
            these.acknowledged(sequence)
        else:
            for message in these.messages():
                before = told.get(message.account)
                if before is not None:
                    assert message.id == before.id
                    assert energy_of(message) >= energy_of(before)
                    assert not before.frozen or message == before
                told[message.account] = message
            sequence += 1
            these.spooled(sequence)
            assert sum(map(energy_of, told.values())) == booked
        assert len(these.all()) <= 2 * accounts_max + 3


def energy_of(message: pb.WorkloadAccount) -> int:
    """All energy of an account."""
    return sum(energy.energy_microjoules for energy in message.energies)
