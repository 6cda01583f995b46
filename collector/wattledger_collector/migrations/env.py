"""Run by alembic for each migration command, on the connection that the caller put into the configuration's attributes.

Reads no ini file and makes no connection of its own.
"""

from alembic import context
from sqlalchemy import Connection

from wattledger_collector.schema import metadata


def _run() -> None:
    connection = context.config.attributes["connection"]
    if not isinstance(connection, Connection):
        raise TypeError("migrations need a connection in the configuration's attributes")
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


_run()
