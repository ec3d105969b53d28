from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {
    "BinaryCrossEntropy": {},
    "CrossEntropy": {"label_smoothing": 0.1},
    "DIST": {"temperature": 2.0, "beta": 1.5},
    "DecoupledKD": {"temperature": 2.0},
    "JensenShannon": {"beta": 0.3},
    "KLDivergence": {"temperature": 3.0},
    "LogitMSE": {},
    "MarginMSE": {},
    "RankingKL": {"temperature": 1.5},
    "ReverseKL": {"top_k": 2},
    "SigmoidKL": {"temperature": 1.5},
    "SkewedKL": {"temperature": 1.5},
    "SoftCrossEntropy": {"temperature": 2.0},
    "SquaredError": {},
    "SymmetricKL": {"top_k": 3},
    "TotalVariation": {"temperature": 2.0, "top_k": 1},
}
