"""Cost against growth: what is made larger, what that takes, and the law it follows."""
