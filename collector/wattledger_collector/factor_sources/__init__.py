"""The providers of factors that can be asked: a module for each, and here the one table of them.

Asks nobody. A new provider is a module with `PROVIDERS`, a line here, and answers in tests/fixtures/factors.
"""

from collections.abc import Mapping

from wattledger_collector.factor_sources import (
    eia930,
    electricity_maps,
    entsoe,
    rte_eco2mix,
    tables,
    uk_carbon_intensity,
    watttime,
)
from wattledger_collector.factor_sources.provider import Provider

PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for module in (electricity_maps, watttime, uk_carbon_intensity, rte_eco2mix, entsoe, eia930, tables)
    for provider in module.PROVIDERS
}
