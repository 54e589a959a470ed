"""`python -m fraudstream`, the same as the command `fraudstream`."""

from fraudstream.cli import main

if __name__ == "__main__":
    main()
