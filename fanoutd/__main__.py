"""``python -m fanoutd`` is the same program as the installed ``fanoutd``."""

from fanoutd.cli import main

if __name__ == "__main__":
    main()
