"""The options of `verify`, apart from what checks, so that other commands need not load it.

Reads nothing. Source of truth: `verify.py`.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "bundle", nargs="+", type=Path, help="what `statement bundle` or `disclose` made; several are compared"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="an earlier checkpoint: the log must have grown from it"
    )
    parser.add_argument("--key", action="append", default=[], metavar="KEY", help="the log's public key, name+id+key")
    parser.add_argument("--witness", action="append", default=[], metavar="KEY", help="a witness that must have signed")
    parser.add_argument(
        "--tsa-certificate",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="certificate (PEM) of a time-stamping authority, or its root's: a time stamp must lead to it",
    )
    parser.add_argument(
        "--statement", type=Path, metavar="FILE", help="statement.json that a disclosed leaf is said to be of"
    )
