"""
The process: what an operator configures and what twistd starts.

`table` lists every option once; `sources` finds what was said, `shapes` judges
it, `settings` puts it together or says all that is wrong; `handbook` writes the
help and docs/configuration.md from the same table.  `tap` is what twistd calls,
`logs` what it writes, `service` the only composition root.
"""
