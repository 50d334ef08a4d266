"""
All SQL: plain functions `(cursor, ...) -> value`, a file for each table family.

A function here neither begins nor commits: whoever passes it to
`Store.write` or `Store.read` gets the transaction round it.
"""
