"""
What RFC 6749 and its kin allow.

Values in, values out: an authorization request, a registration, a code, a
refresh token come in as they were sent, and a judgement comes out.  There is
no Twisted here, no clock (`now` is a parameter, seconds since the epoch) and
no store.  A refusal is a value from `fjmcp.refusals`; who calls decides where
it is shown.  The sentence of the RFC stands above the line that obeys it.
"""
