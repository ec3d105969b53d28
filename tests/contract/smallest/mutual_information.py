from typing import Any

SMALL = {"hidden": 6, "width": 4}

SMALLEST: dict[str, dict[str, Any]] = {
    "InfoNCE": {"critic": {**SMALL, "normalize": True}, "temperature": 0.1},
    "JensenShannonMI": {"critic": SMALL},
    "MIAlpha": {"critic": {**SMALL, "pooling": "tokens"}, "alpha": 0.5, "exact": True},
    "NWJ": {"critic": {**SMALL, "kind": "bilinear"}},
    "TUBA": {"critic": {**SMALL, "pooling": "first"}, "clamp": 8.0},
}
