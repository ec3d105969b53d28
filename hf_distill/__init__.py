"""hf_distill: small transformers out of large ones, inside the Hugging Face Trainer."""
