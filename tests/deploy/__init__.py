"""What needs programs that no developer must have: `make deploy-test`."""
