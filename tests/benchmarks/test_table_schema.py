"""The published schema of the latency table is the one that the record has."""

from __future__ import annotations

from pathlib import Path

from practise_deploy.deployment.latency_table import table_schema

ROOT = Path(__file__).resolve().parents[2]
AGAIN = "python -c 'from practise_deploy.deployment.latency_table import table_schema; print(table_schema(), end=\"\")'"


def test_the_published_schema_is_the_records():
    kept = (ROOT / "docs" / "latency-table.schema.json").read_text()
    assert kept == table_schema(), f"{AGAIN} > docs/latency-table.schema.json"
