"""`python -m guardhouse`: the same as the `guardhouse` command."""

from guardhouse.cli.main import main

if __name__ == "__main__":
    main()
