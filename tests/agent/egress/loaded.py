"""What is drawn for a test may take as long as a busy machine needs for it."""

from hypothesis import HealthCheck, settings

LOADED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
