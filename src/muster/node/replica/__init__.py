"""Copies of streams: what is fetched, taken in, confirmed, refused, and who is in the fleet."""
