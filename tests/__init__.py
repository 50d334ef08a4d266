"""
The tests, which mirror `fjmcp/`.

Hypothesis' profiles are here because pytest and trial both import this.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A machine that others use stalls now and then: no test fails by the clock.
settings.register_profile("dev", deadline=None, max_examples=25)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
