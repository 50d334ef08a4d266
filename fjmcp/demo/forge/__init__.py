"""
A stand-in Forgejo, faithful to what was measured on the real one.

It keeps the people and repositories of a small instance, signs people in,
hands out tokens with one refresh counter for each person and application, and
has a switch for each trouble that a real forge can make.
"""
