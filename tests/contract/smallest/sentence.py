from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "SimilarityKL": {"temperature": 0.2},
    "SimilarityMSE": {},
}
