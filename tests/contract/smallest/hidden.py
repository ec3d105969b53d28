from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "HiddenCosine": {},
    "HiddenKL": {},
    "HiddenMSE": {"normalize": True},
    "PKD": {},
}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "HiddenCosine": [{"pooling": "first"}],
    "HiddenKL": [{"pooling": "mean"}],
    "HiddenMSE": [{"normalize": False}, {"pooling": "first"}, {"pooling": "mean"}],
}
