"""`python -m compiler`: the same as the `buildgraph` program."""

from compiler.cli.main import entry

if __name__ == "__main__":
    entry()
