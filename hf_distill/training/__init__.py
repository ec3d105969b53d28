"""How is it trained: inside the Hugging Face Trainer."""
