"""`python -m tollgate_operator`."""

from tollgate_operator.main import main

main(prog_name="tollgate-operator")
