"""The model gateway of an attempt: it has the key, counts what is used, and ends at the budget."""
