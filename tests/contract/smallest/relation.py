from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "MiniLM": {},
    "MiniLMv2": {"relation_heads": 4, "relations": ["query-query", "query-key", "value-value"]},
}
