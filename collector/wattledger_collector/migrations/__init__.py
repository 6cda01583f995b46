"""Migrations of the ledger's database, shipped inside the package so that an installed program can apply them."""
