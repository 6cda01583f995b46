"""What an agent tells of its delivery is one line for people, and doctor finds in it what matters."""

from wattledger_agent.delivery_text import clock_seconds_in, delivery_text, refusal_in


def test_each_state_of_delivery_has_its_words() -> None:
    """On one line, whatever the collector wrote."""
    assert delivery_text(connected=True, refusal="", error="", collector_clock_seconds=None) == "metering and delivering"
    away = delivery_text(connected=False, refusal="", error="UNAVAILABLE:\nrefused", collector_clock_seconds=None)
    assert away == "metering into the spool: UNAVAILABLE: refused"
    begun = delivery_text(connected=False, refusal="", error="", collector_clock_seconds=None)
    assert begun == "metering into the spool: no stream to the collector yet"


def test_what_was_told_is_found_again() -> None:
    """The refusal with its own stops and signs, and the clock with its sign."""
    reason = "two machines use host id a; boot 1 was followed by boot 2: give one its own id"
    text = delivery_text(connected=False, refusal=reason, error="", collector_clock_seconds=-3.25)

    assert refusal_in(text) == reason
    assert clock_seconds_in(text) == -3.2


def test_where_nothing_was_told_nothing_is_found() -> None:
    """As where the unit does not run."""
    assert (refusal_in(""), clock_seconds_in("")) == ("", None)
    assert refusal_in("metering and delivering; the collector's clock is +0.0 s from this one") == ""
