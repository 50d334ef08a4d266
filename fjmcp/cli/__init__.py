"""
The operator's tool, `fjmcp`: what a person does to a daemon that runs, or to
its store while none does.  A file here is a noun, the first word of a command.

Exit codes: 0 done, 1 not done (the text says why), 2 the command is wrong.
"""
