from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "FSP": {},
    "NST": {},
    "TokenGramMSE": {},
}
