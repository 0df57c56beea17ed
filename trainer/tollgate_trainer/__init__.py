"""The trainer that runs in the pods and on a laptop."""
