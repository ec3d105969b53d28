from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "AttentionKL": {},
    "AttentionMSE": {},
}
