"""`python -m engine` is `gaussmeter`."""

from engine.cli.app import command

if __name__ == "__main__":
    command()
