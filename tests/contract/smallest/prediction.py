from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "BinaryCrossEntropy": {},
    "CrossEntropy": {"label_smoothing": 0.1},
    "KLDivergence": {"temperature": 3.0},
    "LogitMSE": {},
    "SigmoidKL": {"temperature": 1.5},
    "SoftCrossEntropy": {"temperature": 2.0},
    "SquaredError": {},
}
