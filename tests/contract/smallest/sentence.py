from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "SimilarityKL": {"temperature": 0.2},
    "SimilarityMSE": {},
}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "SimilarityKL": [{"temperature": 0.2, "pooling": "first"}],
    "SimilarityMSE": [{"normalize": "rows"}, {"pooling": "first"}],
}
