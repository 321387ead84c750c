"""`python -m practise_deploy.cli`."""

from practise_deploy.cli import main

main()
