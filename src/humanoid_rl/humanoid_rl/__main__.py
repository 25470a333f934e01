"""`python -m humanoid_rl`: the command line where no script is on the PATH."""

from humanoid_rl.cli import main

raise SystemExit(main())
