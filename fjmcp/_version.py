"""
The version, which `python -m incremental.update fjmcp` writes at a release.
"""

from __future__ import annotations

from incremental import Version

__version__ = Version("fjmcp", 0, 1, 0, dev=0)

__all__ = ["__version__"]
