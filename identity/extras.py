"""What to install where an optional package is missing."""

from typing import Final

_EXTRAS: Final = {
    "boto3": "ses",
    "botocore": "ses",
    "prometheus_client": "metrics",
    "psycopg": "postgres",
    "valkey": "valkey",
}


def advice(error: ModuleNotFoundError) -> str:
    """The extra of our distribution that brings the module."""
    return f"install identity-service[{_EXTRAS.get((error.name or '').partition('.')[0], '...')}]"
