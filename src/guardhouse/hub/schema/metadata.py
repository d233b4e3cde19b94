"""What every table of the hub is made with: the naming of keys and indexes, and the account. Runs in the hub."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    MetaData,
    String,
    Table,
)

__all__ = ["ACCOUNT_ID", "GROWING", "METADATA", "accounts"]

# One hub serves one account; the column is there so that a later one may serve more.
ACCOUNT_ID: Final = "acc_main"

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# A number that grows for years. In SQLite only INTEGER PRIMARY KEY is the row's own number, of 64 bits anyway.
GROWING: Final = BigInteger().with_variant(Integer(), "sqlite")

accounts = Table(
    "accounts",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
