"""In which scopes an interval of a site counts, and how good its factor is.

A step once released is never edited: what changes later is a step of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns; rows from before counted in scope 2, and nothing was kept of how good their factor was."""
    for name in ("scope", "overhead_scope", "factor_tier"):
        op.add_column("emission_basis", sa.Column(name, sa.String, nullable=False, server_default=""))
