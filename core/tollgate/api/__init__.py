"""The custom resources of group tollgate.dev, one file per kind. crds/ is generated from these by `make crds`."""
