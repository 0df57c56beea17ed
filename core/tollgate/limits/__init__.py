"""Money and time: what a pod's hour costs, what was spent, and when a run has to stop.

`prices` knows a rate, `ledger` turns pods into charges, `stop` decides how much an attempt may use and when it is over,
`forecast` looks ahead. All of it is pure: integers of micro-USD, seconds, aware datetimes that are passed in.
"""
