"""What is compared: the catalogue of objectives. `__all__` is the registry."""

__all__: list[str] = []
