from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "HiddenCosine": {},
    "HiddenMSE": {"normalize": True},
    "PKD": {},
}
