from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {"CKA": {}}
VARIANTS: dict[str, list[dict[str, Any]]] = {"CKA": [{"pooling": "mean"}, {"pooling": "first"}]}
