"""
Forgejo as a peer: what is asked of it over HTTP, and what its answers mean.

Answers are values, troubles too; nothing here remembers anything.
"""
