"""
A Forgejo that stands in for the real one, and a scripted browser.

`forge.py` is the whole of it: an OAuth provider with sign-in and consent
pages, and as much of the API as the children's everyday tools ask for.  It is
as faithful as we could measure, faults included: one refresh counter for a
person and application, scopes that fail open, tokens repeated in refusals.
Nothing imports this room but tests, the operator's tool and make.
"""
