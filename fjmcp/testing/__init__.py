"""
Doubles for tests: the same interfaces, in memory, stepped by a Clock.

A test builds what it needs from here and never from a patch.
"""
