"""Calls of verbs: who may, where they are carried out, and how answers and streams come back."""
