"""What a declared PUE rests on, and what an interval of a site counts as market based.

A step once released is never edited: what changes later is a step of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns; of rows from before, nothing was declared, and the market-based figure is the location-based one."""
    for name in ("pue_from", "pue_to", "pue_category", "pue_evidence"):
        op.add_column("site", sa.Column(name, sa.String, nullable=False, server_default=""))
    for name in ("market_grams_per_kwh", "market_factor"):
        op.add_column("emission_basis", sa.Column(name, sa.String, nullable=False, server_default=""))
