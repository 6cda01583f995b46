"""Makes wattledger_collector/bundled_factors/*.csv from the publishers' tables; run by hand when one has a new edition.

Not part of the package, and no network: the tables' folder is the argument. Every value is converted exactly, in decimals.
Sources of truth: the documents that the rows name. Run: python collector/build_factors.py FOLDER

FOLDER holds owid_ember_country_year/{carbon-intensity-owid.csv,data_iso_3166-1.json},
us_epa_egrid/egrid2023_rev2_subregion_total_output.csv and china_mee_nbs/china_grid_co2_factors_2021_2023.csv.
"""

import csv
import json
import sys
from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, setcontext
from pathlib import Path

from wattledger_collector.factors import COLUMNS, parse_factors

FIRST_COUNTRY_YEAR = 2015  # Ten years up to 2024; nothing that this product meters is older.
KILOGRAMS_PER_POUND = Decimal("0.45359237")  # Exact by definition.

EGRID_SUBREGIONS = {
    "AKGD": "ASCC Alaska Grid",
    "AKMS": "ASCC Miscellaneous",
    "AZNM": "WECC Southwest",
    "CAMX": "WECC California",
    "ERCT": "ERCOT All",
    "FRCC": "FRCC All",
    "HIMS": "HICC Miscellaneous",
    "HIOA": "HICC Oahu",
    "MROE": "MRO East",
    "MROW": "MRO West",
    "NEWE": "NPCC New England",
    "NWPP": "WECC Northwest",
    "NYCW": "NPCC NYC/Westchester",
    "NYLI": "NPCC Long Island",
    "NYUP": "NPCC Upstate NY",
    "PRMS": "Puerto Rico Miscellaneous",
    "RFCE": "RFC East",
    "RFCM": "RFC Michigan",
    "RFCW": "RFC West",
    "RMPA": "WECC Rockies",
    "SPNO": "SPP North",
    "SPSO": "SPP South",
    "SRMV": "SERC Mississippi Valley",
    "SRMW": "SERC Midwest",
    "SRSO": "SERC South",
    "SRTV": "SERC Tennessee Valley",
    "SRVC": "SERC Virginia/Carolina",
    # A zone of its own: one year of data cannot stand for the yearly series of the country zone US.
    "US": "United States, eGRID national",
}

CHINESE_ZONES = {
    "CN": "China",
    "CN-GRID-NORTH": "North China grid",
    "CN-GRID-NORTHEAST": "Northeast China grid",
    "CN-GRID-EAST": "East China grid",
    "CN-GRID-CENTRAL": "Central China grid",
    "CN-GRID-NORTHWEST": "Northwest China grid",
    "CN-GRID-SOUTH": "China Southern grid",
    "CN-GRID-SOUTHWEST": "Southwest China grid",
    "CN-AH": "Anhui",
    "CN-BJ": "Beijing",
    "CN-CQ": "Chongqing",
    "CN-FJ": "Fujian",
    "CN-GD": "Guangdong",
    "CN-GS": "Gansu",
    "CN-GX": "Guangxi",
    "CN-GZ": "Guizhou",
    "CN-HA": "Henan",
    "CN-HB": "Hubei",
    "CN-HE": "Hebei",
    "CN-HI": "Hainan",
    "CN-HL": "Heilongjiang",
    "CN-HN": "Hunan",
    "CN-JL": "Jilin",
    "CN-JS": "Jiangsu",
    "CN-JX": "Jiangxi",
    "CN-LN": "Liaoning",
    "CN-NM": "Inner Mongolia",
    "CN-NX": "Ningxia",
    "CN-QH": "Qinghai",
    "CN-SC": "Sichuan",
    "CN-SD": "Shandong",
    "CN-SH": "Shanghai",
    "CN-SN": "Shaanxi",
    "CN-SX": "Shanxi",
    "CN-TJ": "Tianjin",
    "CN-XJ": "Xinjiang",
    "CN-YN": "Yunnan",
    "CN-ZJ": "Zhejiang",
}

CHINESE_DOCUMENTS = {
    "公告2024年第12号": "MEE and NBS announcement 2024 no. 12 (公告2024年第12号)",
    "公告2024年第33号": "MEE and NBS announcement 2024 no. 33 (公告2024年第33号) "
    "https://www.mee.gov.cn/xxgk2018/xxgk/xxgk01/202412/t20241226_1099413.html",
    "公告2025年第47号": "MEE and NBS announcement 2025 no. 47 (公告2025年第47号) "
    "https://www.mee.gov.cn/xxgk2018/xxgk/xxgk01/202512/t20251231_1139517.html",
}

# National figures for fossil power alone are no grid factor and are left out.
CHINESE_BASES = {
    "national_average": "consumption",
    "regional_average": "consumption",
    "provincial_average": "consumption",
    "national_excl_market_traded_nonfossil": "residual",
}

Row = dict[str, str]


def year(text: str) -> Row:
    """The columns of a calendar year's validity."""
    return {"valid_from": f"{int(text)}-01-01", "valid_to": f"{int(text) + 1}-01-01"}


def countries(folder: Path) -> Iterable[Row]:
    """Our World in Data's series, from Ember's; ISO 3166-1 countries and Kosovo."""
    codes = {
        entry["alpha_3"]: entry["alpha_2"]
        for entry in json.loads((folder / "data_iso_3166-1.json").read_text(encoding="utf-8"))["3166-1"]
    }
    codes["OWID_KOS"] = "XK"  # The code that European institutions use; ISO assigned none.
    with (folder / "carbon-intensity-owid.csv").open(encoding="utf-8", newline="") as lines:
        for entry in csv.DictReader(lines):
            zone = codes.get(entry["Code"])
            if zone is None or int(entry["Year"]) < FIRST_COUNTRY_YEAR:
                continue
            yield {
                "zone": zone,
                "name": entry["Entity"],
                "value": entry["Carbon intensity of electricity - gCO2/kWh"],
                "unit": "g/kWh",
                "signal": "average",
                "boundary": "lifecycle",
                "gas": "CO2e",
                "basis": "production",
                "includes_td": "false",
                **year(entry["Year"]),
                "published": "2025-08-07",
                "source": "OWID-Ember",
                "document": "https://ourworldindata.org/grapher/carbon-intensity-electricity",
                "licence": "CC BY 4.0",
                "attribution": "Ember; Energy Institute - with major processing by Our World in Data",
            }


def egrid(folder: Path) -> Iterable[Row]:
    """EPA's subregions: total output emission rates, CO2e."""
    with (folder / "egrid2023_rev2_subregion_total_output.csv").open(encoding="utf-8", newline="") as lines:
        for entry in csv.DictReader(lines):
            region = entry["subregion"]
            yield {
                "zone": "US-EGRID" if region == "US" else f"US-{region}",
                "name": EGRID_SUBREGIONS[region],
                # lb/MWh x kg/lb = kg/MWh = g/kWh.
                "value": f"{Decimal(entry['co2e_lb_per_MWh']) * KILOGRAMS_PER_POUND:f}",
                "unit": "g/kWh",
                "signal": "average",
                "boundary": "direct",
                "gas": "CO2e",
                "basis": "production",
                "includes_td": "false",
                **year("2023"),
                "published": "2025-06-12",
                "source": "EPA-eGRID2023",
                "document": "https://www.epa.gov/egrid (eGRID2023 rev. 2, total output emission rates)",
                "licence": "US Government work, public domain",
                "attribution": "US Environmental Protection Agency, eGRID2023",
            }


def china(folder: Path) -> Iterable[Row]:
    """The ministry's yearly announcements: nation, regional grids, provinces."""
    with (folder / "china_grid_co2_factors_2021_2023.csv").open(encoding="utf-8", newline="") as lines:
        for entry in csv.DictReader(lines):
            basis = CHINESE_BASES.get(entry["kind"])
            if basis is None:
                continue
            yield {
                "zone": entry["zone"],
                "name": f"{CHINESE_ZONES[entry['zone']]} ({entry['name_zh']})",
                "value": f"{Decimal(entry['kgCO2_per_kWh']) * 1000:f}",
                "unit": "g/kWh",
                "signal": "average",
                "boundary": "direct",
                "gas": "CO2",
                "basis": basis,
                "includes_td": "false",
                **year(entry["data_year"]),
                "published": entry["published"],
                "source": "MEE-NBS",
                "document": CHINESE_DOCUMENTS[entry["announcement"]],
                "licence": "official document of the PRC, facts",
                "attribution": "Ministry of Ecology and Environment and National Bureau of Statistics of China",
            }


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write one table in the schema's order of columns, sorted, and read it back as the product does."""
    ordered = sorted(rows, key=lambda row: (row["zone"], row["basis"], row["valid_from"]))
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered)
    print(f"{path.name}: {len(parse_factors(path.read_text(encoding='utf-8'), path.name))} factors")


def main() -> None:
    """Write all tables."""
    setcontext(Context(prec=50, traps=[Inexact]))
    folder = Path(sys.argv[1])
    target = Path(__file__).parent / "wattledger_collector" / "bundled_factors"
    write(target / "countries.csv", countries(folder / "owid_ember_country_year"))
    write(target / "us_egrid.csv", egrid(folder / "us_epa_egrid"))
    write(target / "china.csv", china(folder / "china_mee_nbs"))


if __name__ == "__main__":
    main()
