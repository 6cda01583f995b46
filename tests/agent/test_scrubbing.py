"""What names somebody is replaced, the same by the same, and what was replaced once stays as it is."""

from hypothesis import given
from hypothesis import strategies as st

from wattledger_agent.scrubbing import Scrubber, left_over

UUIDS = st.uuids().map(str)


def test_identifiers_are_known_by_their_shape() -> None:
    """UUIDs in each spelling, container ids, hardware and network addresses, mail."""
    scrubber = Scrubber()
    text = (
        "GPU-7c1e2b9a-55d0-4f6b-9c3e-a1b2c3d4e5f6 pod7c1e2b9a_55d0_4f6b_9c3e_a1b2c3d4e5f6 "
        f"cri-containerd-{'ab' * 32}.scope pod{'cd' * 16} a4:bf:01:5c:7e:19 10.41.7.23 fd12:3456:789a::17 jo@example.net"
    )
    assert scrubber.text(text) == (
        "GPU-00000000-0000-0000-0000-000000000001 pod00000000_0000_0000_0000_000000000001 "
        f"cri-containerd-{1:064d}.scope pod{1:032d} 02:00:00:00:00:01 192.0.2.1 2001:db8::1 person1@example.org"
    )


def test_what_is_no_name_stays() -> None:
    """Places on the bus, versions, times, energies, loopback and systemd's instances."""
    text = "0000:c1:00.0 580.173.02 10:11:12 262143328850 127.0.0.1 ::1 getty@tty1.service Members@odata.count 24.1.0"
    assert Scrubber().text(text) == text


def test_a_secret_is_replaced_as_a_word() -> None:
    """In any case, not within another word, longer ones before those in them."""
    scrubber = Scrubber()
    assert scrubber.tell("host", "node") == "host0001"
    assert scrubber.tell("host", "node-7") == "host0002"
    assert scrubber.text("NODE node-7 nodes unknown_node7") == "host0001 host0002 nodes unknown_node7"


def test_a_short_secret_is_replaced_only_where_it_was_told() -> None:
    """`u1` is in too many words that name nobody."""
    scrubber = Scrubber()
    assert scrubber.tell("serial", "u1") == "serial0001"
    assert scrubber.text("u1") == "u1"


def test_groups_keep_their_kind_and_lose_their_name() -> None:
    """Units, users, jobs, machines and containers are still what they were."""
    scrubber = Scrubber()
    for name, became in (
        ("kubepods.slice", "kubepods.slice"),
        ("system.slice", "system.slice"),
        ("acme-billing.service", "unit1.service"),
        ("user-53412.slice", "user-1000.slice"),
        ("user@53412.service", "user@1000.service"),
        ("uid_53412", "uid_1000"),
        ("job_7764531", "job_1000"),
        ("step_0", "step_0"),
        ("machine-qemu\\x2d3\\x2dpayments.scope", "machine-qemu\\x2d3\\x2dvm1.scope"),
        ("lxc.payload.shop", "lxc.payload.container1"),
        ("anything", "group1"),
        ("acme-billing.service", "unit1.service"),
    ):
        assert scrubber.group(name) == became


@given(st.lists(st.one_of(UUIDS, st.ip_addresses().map(str), st.text(), st.from_regex(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"))))
def test_once_is_enough(parts: list[str]) -> None:
    """Whatever a text holds, nothing is left for a second time, and the same name becomes the same."""
    scrubber = Scrubber()
    first = scrubber.text(" ".join(parts))
    assert left_over([first], scrubber) == []
    assert scrubber.text(" ".join(parts)) == first


@given(UUIDS)
def test_no_digit_of_an_identifier_is_kept(uuid: str) -> None:
    """A made-up name is made of nothing of the real one."""
    assert uuid not in Scrubber().text(f"a {uuid} b {uuid.upper()} c{uuid}-d").lower() or uuid.startswith("00000000-0000-")
