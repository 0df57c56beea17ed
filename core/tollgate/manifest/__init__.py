"""The training manifest: one strict loader, one canonical digest, the same on a laptop, in the API server and in the
pod.
"""
