"""`python -m fjmcp.cli`, where the package is not installed."""

from fjmcp.cli.main import main

if __name__ == "__main__":
    main(prog_name="fjmcp")
