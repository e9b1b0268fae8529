"""python -m cai_cli"""

from cai_cli.cli._process import main

if __name__ == "__main__":
    main()
