"""`python -m semvlp` is `semvlp`."""

from semvlp.cli import main

if __name__ == "__main__":
    main()
