from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {"HiddenInfoNCE": {"temperature": 0.5}}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "HiddenInfoNCE": [{"temperature": 0.5, "pooling": "first"}]
}
