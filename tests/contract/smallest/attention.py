from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "AttentionKL": {},
    "AttentionMSE": {},
    "AttentionScoresMSE": {},
}
VARIANTS: dict[str, list[dict[str, Any]]] = {name: [{"heads": "mean"}] for name in SMALLEST}
