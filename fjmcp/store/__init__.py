"""
What is remembered: rows in one database, and secrets sealed in them.

`transactions` is the seam (one transaction is one hop to a thread),
`queries` holds all SQL, `migrating` and `migrations/` the schema,
`vault` and `keys` what seals credentials at rest.
"""
