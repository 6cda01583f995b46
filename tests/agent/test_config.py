"""agent.toml: what is wrong is named, with its value and the remedy."""

import pytest

from wattledger_agent.config import AgentConfig, ConfigError, parse_config


def curve(points: str, band: str = "[]") -> str:
    """Return a text with a user's own curve."""
    return f"[sources.estimate]\ncurve_watts = {points}\ncurve_band = {band}"


def redfish(address: str, more: str = "") -> str:
    """Return a text with a management controller."""
    return f"[sources.redfish]\naddress = '{address}'\n{more}"


@pytest.mark.parametrize("address", ["https://bmc1", "https://[fe80::1]:8443/", "http://127.0.0.1:8000", "http://[::1]"])
def test_an_address_of_a_controller_is_taken_as_written(address: str) -> None:
    """HTTPS, or plain where nobody can listen in."""
    assert parse_config(redfish(address)).sources.redfish.address == address


def test_plain_http_to_a_controller_must_be_asked_for() -> None:
    """In so many words."""
    assert parse_config(redfish("http://10.0.0.9", "insecure = true")).sources.redfish.insecure


def test_a_users_own_curve_arrives() -> None:
    """Loads and watts as written, whole numbers too."""
    estimate = parse_config(curve("[[0, 90], [0.5, 210.5], [1, 330]]", "[0.1, 0.2]")).sources.estimate
    assert estimate.curve_watts == ((0.0, 90.0), (0.5, 210.5), (1.0, 330.0))
    assert estimate.curve_band == (0.1, 0.2)


def test_an_empty_text_is_the_defaults() -> None:
    """An agent needs no configuration to meter its own machine for a collector on it."""
    assert parse_config("") == AgentConfig()


def test_values_arrive() -> None:
    """What is written is what the agent uses."""
    config = parse_config(
        'host = "h1"\nperiod_seconds = 0.1\nflush_seconds = 1\n[sources.fake]\nseed = 7\n[labels]\nrack = "r2"'
    )
    assert (config.host, config.period_seconds, config.flush_seconds) == ("h1", 0.1, 1.0)
    assert config.sources.fake is not None
    assert config.sources.fake.seed == 7
    assert config.labels == {"rack": "r2"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("host = ", "agent.toml is not valid TOML"),
        ("perod_seconds = 1", "unknown key `perod_seconds`. Did you mean `period_seconds`?"),
        ("[collector]\nadress = 'a:1'", "unknown key `collector.adress`. Did you mean `collector.address`?"),
        ("[sources.fake]\nsed = 1", "unknown key `sources.fake.sed`. Did you mean `sources.fake.seed`?"),
        ("period_seconds = 0", "`float` >= 0.02 - at `$.period_seconds`"),
        ("period_seconds = 'fast'", "Expected `float`, got `str` - at `$.period_seconds`"),
        ("period_seconds = 20", "`flush_seconds` 10.0 is below `period_seconds` 20.0"),
        ("[collector]\naddress = '127.0.0.1'", "write it as host:port"),
        ("[collector]\naddress = '127.0.0.1:70000'", "write it as host:port"),
        ("[collector]\naddress = '10.0.0.1:9791'", "or write `insecure = true`"),
        ("[collector]\nca_file = 'ca.pem'", "give all three, or none"),
        (redfish("bmc1"), "`sources.redfish.address` is `bmc1`; write it as https://host"),
        (redfish("https://reader:secret@bmc1"), "write it as https://host"),
        (redfish("http://10.0.0.9"), "would carry the password unencrypted. Write https://, or `insecure = true`"),
        (redfish("https://bmc1", "user = 'reader'"), "`sources.redfish.password_file` go together"),
        (curve("[[0.0, 90.0]]"), "`sources.estimate.curve_watts` has 1 points; give 2 to 1000"),
        (curve("[[0.1, 90.0], [1.0, 330.0]]"), "goes from load 0.1 to 1; state the power at load 0.0, which is idle, first"),
        (curve("[[0.0, 90.0], [0.9, 330.0]]"), "goes from load 0 to 0.9"),
        (curve("[[0.0, 0.0], [1.0, 330.0]]"), "`sources.estimate.curve_watts`[0] has 0 W; a machine that runs draws more"),
        (curve("[[0.0, 90.0], [0.5, nan], [1.0, 330.0]]"), "[1] has nan W"),
        (curve("[[0.0, 90.0], [0.5, 210], [0.5, 220], [1.0, 330.0]]"), "[2] has load 0.5, which is not above 0.5 before it"),
        (curve("[[0.0, 90.0], [0.5, 80.0], [1.0, 330.0]]"), "[1] has 80 W, less than 90 W at the load before it"),
        (curve("[[0.0, 90.0, 1.0], [1.0, 330.0]]"), "at `$.sources.estimate.curve_watts[0]`"),
        (curve("[[0.0, 90.0], [1.0, 330.0]]", "[0.1]"), "`sources.estimate.curve_band` is [0.1]; write how far"),
        (curve("[[0.0, 90.0], [1.0, 330.0]]", "[1.0, 0.1]"), "`sources.estimate.curve_band` is [1.0, 0.1]"),
        ("[sources.estimate]\ncurve_band = [0.1, 0.1]", "`sources.estimate.curve_band` is of no use without"),
        ("[workloads]\nkubelet_url = 'http://10.0.0.7:1'", "`workloads.kubelet_url` is `http://10.0.0.7:1`; write https"),
        ("[workloads]\nidle_policy = 'fair'", "Invalid enum value 'fair' - at `$.workloads.idle_policy`"),
        ("[workloads]\nkinds = ['pod']", "Invalid enum value 'pod' - at `$.workloads.kinds[0]`"),
        ("[labels]\n" + "\n".join(f"l{i} = 'x'" for i in range(32)), "33 labels, `hostname` included, are too many"),
        ('[labels]\nrack = "a\\nb"', "label 'rack' has control characters"),
        ("[labels]\nrack = '" + "x" * 300 + "'", "label `rack` is longer than 256 characters"),
        ("[sources.replay]\nspeed = 1", "missing required field `path`"),
        ("[sources.replay]\npath = 'r.csv'", "`sources.replay` needs `host`"),
    ],
)
def test_each_fault_is_told_with_its_remedy(text: str, told: str) -> None:
    """Each distinct fault is one clear sentence that names the key."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert told in str(caught.value)


def test_plain_transport_off_loopback_must_be_asked_for() -> None:
    """`insecure = true` is needed, in so many words, for a plain connection to another machine."""
    assert parse_config("[collector]\naddress = '10.0.0.1:9791'\ninsecure = true").collector.insecure
    assert parse_config("[collector]\naddress = '[::1]:9791'").collector.address == "[::1]:9791"
