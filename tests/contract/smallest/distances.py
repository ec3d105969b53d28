from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {"RKDAngle": {}, "RKDDistance": {}}
VARIANTS: dict[str, list[dict[str, Any]]] = {name: [{"pooling": "first"}] for name in SMALLEST}
