"""The operator: watches, decides, renders; the only writer of status."""
